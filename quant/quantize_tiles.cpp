#include "quant/quantize_tiles.h"

#include <cstring>

#include "dist/vectorize.h"
#include "quant/hadamard.h"

namespace nibble::cpu {
namespace {

struct alignas(64) Tile {
  float value[tile_size][tile_size];  // [position in the block][lane]
};

struct alignas(64) Lanes {
  uint32_t word[tile_size];
};

// ---- Loading: the tile's 16 x 16 elements, lanes beyond the last row zero ----

template <class T>
NIBBLE_INLINE void load_whole(const T* corner, int64_t stride, bool transpose, Tile& tile) {
  if (transpose) {
    for (int position = 0; position < tile_size; ++position) {
      for (int lane = 0; lane < tile_size; ++lane) {
        tile.value[position][lane] = to_float(corner[position * stride + lane]);
      }
    }
  } else {
    for (int lane = 0; lane < tile_size; ++lane) {
      for (int position = 0; position < tile_size; ++position) {
        tile.value[position][lane] = to_float(corner[lane * stride + position]);
      }
    }
  }
}

template <class T>
NIBBLE_INLINE void load_partial(const T* corner, int64_t stride, bool transpose, int64_t lanes, Tile& tile) {
  memset(&tile, 0, sizeof tile);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    for (int position = 0; position < tile_size; ++position) {
      tile.value[position][lane] = to_float(transpose ? corner[position * stride + lane]  //
                                                      : corner[lane * stride + position]);
    }
  }
}

NIBBLE_INLINE void round_to_bf16(Tile& tile) {
  for (auto& row : tile.value) {
    for (float& value : row) value = to_float(bf16_nearest(value));
  }
}

NIBBLE_INLINE void butterfly(float* __restrict upper, float* __restrict lower) {
  for (int lane = 0; lane < tile_size; ++lane) {
    const float a = upper[lane];
    const float b = lower[lane];
    upper[lane] = a + b;
    lower[lane] = a - b;
  }
}

template <int stride>
NIBBLE_INLINE void rotate_stage(Tile& tile) {
  for (int pair = 0; pair < tile_size / 2; ++pair) {
    const int position = (pair & (stride - 1)) + (pair & ~(stride - 1)) * 2;
    butterfly(tile.value[position], tile.value[position + stride]);
  }
}

// hadamard.h's rotate_16 on every lane.
NIBBLE_INLINE void rotate_lanes(Tile& tile) {
  for (int position = 0; position < tile_size; ++position) {
    const float factor = hadamard_factor((hadamard_sign_mask >> position) & 1u, hadamard_points);
    for (float& value : tile.value[position]) value *= factor;
  }
  rotate_stage<1>(tile);
  rotate_stage<2>(tile);
  rotate_stage<4>(tile);
  rotate_stage<8>(tile);
}

template <class T>
NIBBLE_INLINE void load_tile(const TileSource& source, int64_t tile_index, int64_t block, Tile& tile) {
  const int64_t row = tile_index * tile_size;
  const int64_t along = block * tile_size;
  const T* corner = static_cast<const T*>(source.data) +
                    (source.transpose ? along * source.stride + row : row * source.stride + along);
  if (source.rows - row >= tile_size) {
    load_whole(corner, source.stride, source.transpose, tile);
  } else {
    load_partial(corner, source.stride, source.transpose, source.rows - row, tile);
  }
  if (!source.rotate) return;
  if (sizeof(T) == sizeof(float)) round_to_bf16(tile);
  rotate_lanes(tile);
  round_to_bf16(tile);
}

// ---- Scales ----

NIBBLE_INLINE void lane_amax(const Tile& tile, Lanes& amax) {
  for (uint32_t& word : amax.word) word = 0;
  for (const auto& row : tile.value) {
    for (int lane = 0; lane < tile_size; ++lane) {
      const uint32_t magnitude = bits_of(row[lane]) & 0x7FFFFFFFu;
      amax.word[lane] = magnitude > amax.word[lane] ? magnitude : amax.word[lane];
    }
  }
}

NIBBLE_INLINE uint32_t max_of(const Lanes& lanes) {
  uint32_t largest = 0;
  for (const uint32_t word : lanes.word) largest = word > largest ? word : largest;
  return largest;
}

// Block scale of each lane; multiplies the tile by the reciprocals.
NIBBLE_INLINE void scale_tile(const CastProblem& problem, Tile& tile, Lanes& scales) {
  Lanes amax;
  lane_amax(tile, amax);
  if (problem.spec.block == BlockShape::square) {
    const uint32_t largest = max_of(amax);
    for (uint32_t& word : amax.word) word = largest;
  }
  const float multiplier = problem.scale.encode * (1.0f / 6.0f);
  if (problem.spec.round == Rounding::stochastic) {
    for (int lane = 0; lane < tile_size; ++lane) {
      scales.word[lane] = block_scale_guarded(float_of_bits(amax.word[lane]) * multiplier);
    }
  } else {
    for (int lane = 0; lane < tile_size; ++lane) {
      scales.word[lane] = block_scale_nearest(float_of_bits(amax.word[lane]) * multiplier);
    }
  }
  const float tensor_decode = problem.scale.decode;
  alignas(64) float encode[tile_size];
  for (int lane = 0; lane < tile_size; ++lane) {
    encode[lane] = element_encode_scale(scales.word[lane], tensor_decode);
  }
  for (auto& row : tile.value) {
    for (int lane = 0; lane < tile_size; ++lane) row[lane] *= encode[lane];
  }
}

// ---- Elements ----

// random_block() of philox.h for the blocks of the 16 lanes.
NIBBLE_INLINE void draw_noise(const CastProblem& problem, int64_t row, int64_t block, Lanes (&noise)[4]) {
  for (int lane = 0; lane < tile_size; ++lane) {
    const PhiloxBlock drawn = random_block(problem.noise, static_cast<uint64_t>((row + lane) * problem.blocks + block));
    for (int word = 0; word < 4; ++word) noise[word].word[lane] = drawn.word[word];
  }
}

// Eight codes of every lane in one word, the first in the low nibble. `code(position, lane, value)`.
template <class Code>
NIBBLE_INLINE void pack(const Tile& tile, Code code, Lanes (&packed)[2]) {
  for (int half = 0; half < 2; ++half) {
    for (uint32_t& word : packed[half].word) word = 0;
    for (int i = 0; i < 8; ++i) {
      const int position = half * 8 + i;
      for (int lane = 0; lane < tile_size; ++lane) {
        packed[half].word[lane] |= static_cast<uint32_t>(code(position, lane, tile.value[position][lane])) << (4 * i);
      }
    }
  }
}

NIBBLE_INLINE void encode_tile(const CastProblem& problem, const Tile& tile, int64_t row, int64_t block,
                               Lanes (&packed)[2]) {
  if (problem.spec.round == Rounding::nearest) {
    pack(
        tile, [](int, int, float value) __attribute__((always_inline)) { return e2m1_nearest(value); }, packed);
    return;
  }
  Lanes noise[4];
  draw_noise(problem, row, block, noise);
  const auto byte = [&noise](int position, int lane) __attribute__((always_inline)) {
    return (noise[position >> 2].word[lane] >> (8 * (position & 3))) & 0xFFu;
  };
  if (problem.spec.round == Rounding::stochastic) {
    pack(
        tile,
        [&](int position, int lane, float value)
            __attribute__((always_inline)) { return e2m1_stochastic_centred(value, byte(position, lane)); },
        packed);
  } else {
    pack(
        tile,
        [&](int position, int lane, float value)
            __attribute__((always_inline)) { return e2m1_stochastic_published(value, byte(position, lane)); },
        packed);
  }
}

template <class T>
NIBBLE_INLINE void cast_tiles_of(const CastProblem& problem, const TileRange& range) {
  for (int64_t block = range.first_block; block < range.last_block; ++block) {
    for (int64_t index = range.first_tile; index < range.last_tile; ++index) {
      const int64_t row = index * tile_size;
      const int64_t lanes = problem.source.rows - row < tile_size ? problem.source.rows - row : tile_size;
      Tile tile;
      Lanes scales;
      Lanes packed[2];
      load_tile<T>(problem.source, index, block, tile);
      scale_tile(problem, tile, scales);
      encode_tile(problem, tile, row, block, packed);
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const int64_t at = (row + lane) * problem.blocks + block;
        problem.block_scales[at] = static_cast<uint8_t>(scales.word[lane]);
        memcpy(problem.codes + at * 8, &packed[0].word[lane], 4);
        memcpy(problem.codes + at * 8 + 4, &packed[1].word[lane], 4);
      }
    }
  }
}

template <class T>
NIBBLE_INLINE uint32_t amax_of_tiles_of(const TileSource& source, const TileRange& range) {
  Lanes largest{};
  for (int64_t block = range.first_block; block < range.last_block; ++block) {
    for (int64_t index = range.first_tile; index < range.last_tile; ++index) {
      Tile tile;
      Lanes amax;
      load_tile<T>(source, index, block, tile);
      lane_amax(tile, amax);
      for (int lane = 0; lane < tile_size; ++lane) {
        largest.word[lane] = amax.word[lane] > largest.word[lane] ? amax.word[lane] : largest.word[lane];
      }
    }
  }
  return max_of(largest);
}

NIBBLE_VECTORIZE void cast_tiles_bf16(const CastProblem& problem, const TileRange& range) {
  cast_tiles_of<BFloat16>(problem, range);
}
NIBBLE_VECTORIZE void cast_tiles_f32(const CastProblem& problem, const TileRange& range) {
  cast_tiles_of<float>(problem, range);
}
NIBBLE_VECTORIZE uint32_t amax_of_tiles_bf16(const TileSource& source, const TileRange& range) {
  return amax_of_tiles_of<BFloat16>(source, range);
}
NIBBLE_VECTORIZE uint32_t amax_of_tiles_f32(const TileSource& source, const TileRange& range) {
  return amax_of_tiles_of<float>(source, range);
}

NIBBLE_VECTORIZE uint32_t amax_f32(const float* values, size_t count) {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t magnitude = bits_of(values[i]) & 0x7FFFFFFFu;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}
NIBBLE_VECTORIZE uint32_t amax_bf16(const BFloat16* values, size_t count) {
  uint16_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint16_t magnitude = values[i].bits & 0x7FFFu;
    largest = magnitude > largest ? magnitude : largest;
  }
  return static_cast<uint32_t>(largest) << 16;
}

NIBBLE_VECTORIZE int64_t non_finite_f32(const float* values, size_t count) {
  int64_t found = 0;
  for (size_t i = 0; i < count; ++i) found += (bits_of(values[i]) & 0x7F800000u) == 0x7F800000u ? 1 : 0;
  return found;
}
NIBBLE_VECTORIZE int64_t non_finite_bf16(const BFloat16* values, size_t count) {
  int64_t found = 0;
  for (size_t i = 0; i < count; ++i) found += (values[i].bits & 0x7F80u) == 0x7F80u ? 1 : 0;
  return found;
}

}  // namespace

void cast_tiles(const CastProblem& problem, const TileRange& range) {
  problem.source.dtype == DType::bf16 ? cast_tiles_bf16(problem, range) : cast_tiles_f32(problem, range);
}
uint32_t amax_of_tiles(const TileSource& source, const TileRange& range) {
  return source.dtype == DType::bf16 ? amax_of_tiles_bf16(source, range) : amax_of_tiles_f32(source, range);
}
uint32_t amax_of_span(const float* values, size_t count) {
  return amax_f32(values, count);
}
uint32_t amax_of_span(const BFloat16* values, size_t count) {
  return amax_bf16(values, count);
}
int64_t non_finite_in_span(const float* values, size_t count) {
  return non_finite_f32(values, count);
}
int64_t non_finite_in_span(const BFloat16* values, size_t count) {
  return non_finite_bf16(values, count);
}

}  // namespace nibble::cpu
