#include "quant/quantize/cpu/row_block.h"

#include <cstring>

namespace nibble::cpu {
namespace {

template <class T>
NIBBLE_INLINE void load_square(const T* corner, int64_t stride, bool transpose, float (*__restrict to)[lanes]) {
  if (transpose) {
    for (int position = 0; position < lanes; ++position) {
      for (int lane = 0; lane < lanes; ++lane) to[position][lane] = to_float(corner[position * stride + lane]);
    }
  } else {
    for (int lane = 0; lane < lanes; ++lane) {
      for (int position = 0; position < lanes; ++position) {
        to[position][lane] = to_float(corner[lane * stride + position]);
      }
    }
  }
}

struct Extent {
  int64_t rows = 0;
  int64_t positions = 0;
};

template <class T>
NIBBLE_INLINE void load_partial(const T* corner, int64_t stride, bool transpose, const Extent& extent,
                                float (*to)[lanes]) {
  memset(to, 0, sizeof(float) * lanes * lanes);
  for (int64_t lane = 0; lane < extent.rows; ++lane) {
    for (int64_t position = 0; position < extent.positions; ++position) {
      to[position][lane] = to_float(transpose ? corner[position * stride + lane] : corner[lane * stride + position]);
    }
  }
}

template <class T>
NIBBLE_INLINE void load_values(const RowBlockSource& source, const RowBlockBounds& bounds, RowBlock& row_block) {
  const int64_t rows = source.rows - bounds.row;
  for (int first = 0; first < bounds.positions; first += lanes) {
    const int64_t along = bounds.position + first;
    const T* corner = static_cast<const T*>(source.data) +
                      (source.transpose ? along * source.stride + bounds.row : bounds.row * source.stride + along);
    if (rows >= lanes && bounds.positions - first >= lanes) {
      load_square(corner, source.stride, source.transpose, row_block.value + first);
    } else {
      const Extent extent{rows < lanes ? rows : lanes,
                          bounds.positions - first < lanes ? bounds.positions - first : lanes};
      load_partial(corner, source.stride, source.transpose, extent, row_block.value + first);
    }
  }
}
NIBBLE_VECTORIZE void load_f32(const RowBlockSource& source, const RowBlockBounds& bounds, RowBlock& row_block) {
  load_values<float>(source, bounds, row_block);
}
NIBBLE_VECTORIZE void load_bf16(const RowBlockSource& source, const RowBlockBounds& bounds, RowBlock& row_block) {
  load_values<BFloat16>(source, bounds, row_block);
}

NIBBLE_VECTORIZE void round_to_bf16(RowBlock& row_block, int positions) {
  for (int position = 0; position < positions; ++position) {
    for (float& value : row_block.value[position]) value = to_float(bf16_nearest(value));
  }
}

NIBBLE_INLINE void butterfly(float* __restrict upper, float* __restrict lower) {
  for (int lane = 0; lane < lanes; ++lane) {
    const float a = upper[lane];
    const float b = lower[lane];
    upper[lane] = a + b;
    lower[lane] = a - b;
  }
}

// Does two butterfly stages, with strides `stride` and 2 * stride, in one pass over the group.
NIBBLE_INLINE void two_stages(float (*group)[lanes], int points, int stride) {
  for (int base = 0; base < points; base += 4 * stride) {
    for (int i = base; i < base + stride; ++i) {
      float* __restrict x0 = group[i];
      float* __restrict x1 = group[i + stride];
      float* __restrict x2 = group[i + 2 * stride];
      float* __restrict x3 = group[i + 3 * stride];
      for (int lane = 0; lane < lanes; ++lane) {
        const float low_sum = x0[lane] + x1[lane];
        const float low_difference = x0[lane] - x1[lane];
        const float high_sum = x2[lane] + x3[lane];
        const float high_difference = x2[lane] - x3[lane];
        x0[lane] = low_sum + high_sum;
        x2[lane] = low_sum - high_sum;
        x1[lane] = low_difference + high_difference;
        x3[lane] = low_difference - high_difference;
      }
    }
  }
}

// Does rotate_points() of quant/format/hadamard.h on every lane of every group of `points` positions.
NIBBLE_VECTORIZE void rotate_row_block(RowBlock& row_block, int positions, int points, const PhiloxBlock& signs) {
  for (int position = 0; position < positions; ++position) {
    const float factor = hadamard_factor(sign_of(signs, position), points);
    for (float& value : row_block.value[position]) value *= factor;
  }
  for (int first = 0; first < positions; first += points) {
    float(*group)[lanes] = row_block.value + first;
    int stride = 1;
    for (; 2 * stride < points; stride *= 4) two_stages(group, points, stride);
    if (stride < points) {
      for (int i = 0; i < points; ++i) {
        if ((i & stride) == 0) butterfly(group[i], group[i + stride]);
      }
    }
  }
}

void rotate(const RowBlockSource& source, const RowBlockBounds& bounds, RowBlock& row_block) {
  const bool sixteen = source.rotate == hadamard_points;
  if (sixteen && source.dtype == DType::f32) round_to_bf16(row_block, bounds.positions);
  for (int rotation = 0; rotation < source.rotations; ++rotation) {
    const PhiloxBlock signs = source.drawn_signs ? drawn_signs(source.signs, rotation, bounds.position / sign_chunk)
                                                 : fixed_signs(source.rotate, rotation);
    rotate_row_block(row_block, bounds.positions, source.rotate, signs);
  }
  if (sixteen) round_to_bf16(row_block, bounds.positions);
}

NIBBLE_VECTORIZE void raise_lane_maxima(const RowBlock& row_block, int positions, LaneWords& maxima) {
  LaneWords largest = maxima;
  for (int position = 0; position < positions; ++position) {
    for (int lane = 0; lane < lanes; ++lane) {
      const uint32_t magnitude = bits_of(row_block.value[position][lane]) & 0x7FFFFFFFu;
      largest.word[lane] = magnitude > largest.word[lane] ? magnitude : largest.word[lane];
    }
  }
  maxima = largest;
}

}  // namespace

RowBlockSource row_block_source(const Tensor& source, bool transpose, const OperandSpec& spec,
                                const SignStream& signs) {
  const int64_t cols = source.cols();
  const int64_t rows = cols == 0 ? 0 : source.rows();
  return {.data = source.data(),
          .dtype = source.dtype(),
          .transpose = transpose,
          .stride = cols,
          .rows = transpose ? cols : rows,
          .inner = transpose ? rows : cols,
          .rotate = spec.rotate,
          .rotations = spec.rotations,
          .drawn_signs = spec.signs != Signs::fixed,
          .signs = signs};
}

void load_row_block(const RowBlockSource& source, const RowBlockBounds& bounds, RowBlock& row_block) {
  source.dtype == DType::bf16 ? load_bf16(source, bounds, row_block) : load_f32(source, bounds, row_block);
  if (source.rotate != 0) rotate(source, bounds, row_block);
}

uint32_t amax_of_row_block(const RowBlock& row_block, int positions) {
  LaneWords largest{};
  raise_lane_maxima(row_block, positions, largest);
  uint32_t result = 0;
  for (const uint32_t word : largest.word) result = word > result ? word : result;
  return result;
}

void include_lane_maxima(const RowBlock& row_block, int positions, LaneWords& largest) {
  raise_lane_maxima(row_block, positions, largest);
}

}  // namespace nibble::cpu
