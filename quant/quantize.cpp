#include "quant/quantize.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "dist/dispatch.h"
#include "dist/error.h"
#include "dist/thread_pool.h"
#include "dist/vectorize.h"
#include "quant/codec.h"
#include "quant/quantize_tiles.h"

namespace nibble {
namespace cpu {
namespace {

constexpr size_t span_grain = size_t{1} << 16;  // elements a chunk of a pass over contiguous memory

struct Shape {
  int64_t rows = 0;
  int64_t inner = 0;
};

Shape operand_shape(const QuantizeProblem& problem) {
  const int64_t cols = problem.source.cols();
  const int64_t rows = cols == 0 ? 0 : problem.source.rows();
  return problem.transpose ? Shape{cols, rows} : Shape{rows, cols};
}

bool is_format_of(DType dtype, Format format) {
  return (dtype == DType::f32 && format == Format::f32) || (dtype == DType::bf16 && format == Format::bf16);
}

// ---- Unquantised formats ----

NIBBLE_VECTORIZE void widen(const BFloat16* from, float* to, size_t count) {
  for (size_t i = 0; i < count; ++i) to[i] = to_float(from[i]);
}
NIBBLE_VECTORIZE void round_to_bf16(const float* from, BFloat16* to, size_t count) {
  for (size_t i = 0; i < count; ++i) to[i] = bf16_nearest(from[i]);
}

void copy_converted(const Tensor& from, const Tensor& to) {
  parallel_for(static_cast<size_t>(from.elements()), span_grain, [&](size_t begin, size_t end) {
    if (from.dtype() == DType::bf16) {
      widen(from.as<BFloat16>() + begin, to.as<float>() + begin, end - begin);
    } else {
      round_to_bf16(from.as<float>() + begin, to.as<BFloat16>() + begin, end - begin);
    }
  });
}

QuantizedTensor plain_operand(const QuantizeProblem& problem, const QuantizedTensor& storage) {
  QuantizedTensor operand = storage;
  operand.transposed = problem.transpose;
  const int64_t rows = problem.transpose ? operand.inner : operand.rows;
  const int64_t cols = problem.transpose ? operand.rows : operand.inner;
  if (is_format_of(problem.source.dtype(), problem.spec.format)) {
    operand.values = problem.source.reshape({rows, cols});
    return operand;
  }
  NIBBLE_CHECK(is_format_of(storage.values.dtype(), problem.spec.format), "storage of another format");
  operand.values = storage.values.reshape({rows, cols});
  copy_converted(problem.source, operand.values);
  return operand;
}

// ---- NVFP4 ----

// The largest of non-negative values from many threads. The order does not matter.
class SharedMax {
 public:
  void include(uint32_t value) {
    uint32_t seen = largest_.load(std::memory_order_relaxed);
    while (value > seen && !largest_.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
    }
  }
  uint32_t value() const { return largest_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint32_t> largest_{0};
};

// Cuts the tiles of an operand into ranges for parallel_for. Blocks along the source's first axis are taken 256 rows of
// the operand at a time, so that a range reads whole cache lines of the source.
class TileCuts {
 public:
  TileCuts(int64_t rows, int64_t blocks, bool transpose)
      : tiles_(div_ceil<int64_t>(rows, tile_size)),
        blocks_(blocks),
        tile_step_(transpose ? 16 : 1),
        block_step_(transpose ? 64 : 256),
        ranges_across_(div_ceil(blocks, block_step_)) {}
  size_t count() const { return static_cast<size_t>(div_ceil(tiles_, tile_step_) * ranges_across_); }
  TileRange range(size_t index) const {
    const int64_t tile = static_cast<int64_t>(index) / ranges_across_ * tile_step_;
    const int64_t block = static_cast<int64_t>(index) % ranges_across_ * block_step_;
    return TileRange{tile, std::min(tile + tile_step_, tiles_), block, std::min(block + block_step_, blocks_)};
  }

 private:
  int64_t tiles_, blocks_, tile_step_, block_step_, ranges_across_;
};

template <class Body>
void for_each_range(const TileCuts& cuts, Body body) {
  parallel_for(cuts.count(), 1, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) body(cuts.range(index));
  });
}

float amax_of(const Tensor& source, const TileSource& tiles, const TileCuts& cuts) {
  SharedMax largest;
  if (tiles.rotate) {
    for_each_range(cuts, [&](const TileRange& range) { largest.include(amax_of_tiles(tiles, range)); });
  } else {
    parallel_for(static_cast<size_t>(source.elements()), span_grain, [&](size_t begin, size_t end) {
      largest.include(source.dtype() == DType::bf16 ? amax_of_span(source.as<BFloat16>() + begin, end - begin)
                                                    : amax_of_span(source.as<float>() + begin, end - begin));
    });
  }
  return float_of_bits(largest.value());
}

QuantizedTensor nvfp4_operand(const QuantizeProblem& problem, const QuantizedTensor& storage) {
  const int64_t blocks = div_exact<int64_t>(storage.inner, tile_size);
  NIBBLE_CHECK(problem.spec.block == BlockShape::row || storage.rows % tile_size == 0, "16x16 blocks");
  NIBBLE_CHECK(storage.values.elements() == storage.rows * blocks * 8 &&
                   storage.block_scales.elements() == storage.rows * blocks && storage.tensor_scale.elements() == 2,
               "storage of another shape");
  NIBBLE_CHECK(storage.rows * blocks < int64_t{1} << 40, "too many blocks for one noise stream");

  const TileSource tiles{problem.source.data(), problem.source.dtype(), problem.transpose,
                         problem.source.cols(), storage.rows,           problem.spec.rotate != 0};
  const TileCuts cuts(storage.rows, blocks, problem.transpose);
  const float amax = amax_of(problem.source, tiles, cuts);
  const TensorScale scale = tensor_scale_of(amax, problem.spec.round == Rounding::stochastic);
  float* tensor_scale = storage.tensor_scale.as<float>();
  tensor_scale[0] = is_finite(amax) ? scale.decode : std::numeric_limits<float>::quiet_NaN();
  tensor_scale[1] = amax;

  const CastProblem cast{
      tiles, problem.spec, problem.noise, scale, storage.values.as<uint8_t>(), storage.block_scales.as<uint8_t>(),
      blocks};
  for_each_range(cuts, [&](const TileRange& range) { cast_tiles(cast, range); });
  return storage;
}

// ---- Reading back ----

NIBBLE_INLINE void round_once(double exact, float& output) {
  output = static_cast<float>(exact);
}
NIBBLE_INLINE void round_once(double exact, BFloat16& output) {
  output = bf16_nearest_once(exact);
}

// A code times its block scale is exact in FP32, and that times the tensor scale is exact in double.
template <class Output>
NIBBLE_INLINE void decode_blocks_to(const uint8_t* codes, const uint8_t* scales, float tensor_scale, size_t blocks,
                                    Output* output) {
  for (size_t block = 0; block < blocks; ++block) {
    const float block_scale = e4m3_to_float(scales[block]);
    for (size_t half = 0; half < 2; ++half) {
      uint32_t word = 0;
      memcpy(&word, codes + block * 8 + half * 4, sizeof word);
      Output* values = output + block * 16 + half * 8;
      for (uint32_t i = 0; i < 8; ++i) {
        const float value = e2m1_to_float(word >> (4 * i) & 15u) * block_scale;
        round_once(static_cast<double>(value) * static_cast<double>(tensor_scale), values[i]);
      }
    }
  }
}
NIBBLE_VECTORIZE void decode_blocks(const uint8_t* codes, const uint8_t* scales, float tensor_scale, size_t blocks,
                                    float* output) {
  decode_blocks_to(codes, scales, tensor_scale, blocks, output);
}
NIBBLE_VECTORIZE void decode_blocks(const uint8_t* codes, const uint8_t* scales, float tensor_scale, size_t blocks,
                                    BFloat16* output) {
  decode_blocks_to(codes, scales, tensor_scale, blocks, output);
}

// Rows [begin, end) of an nvfp4 operand.
template <class Output>
void decode_rows(const QuantizedTensor& operand, Output* output, size_t begin, size_t end) {
  const size_t blocks = static_cast<size_t>(operand.inner) / 16;
  const size_t first = begin * blocks;
  decode_blocks(operand.values.as<uint8_t>() + first * 8, operand.block_scales.as<uint8_t>() + first,
                operand.tensor_scale.as<float>()[0], (end - begin) * blocks, output + first * 16);
}

template <class From, class Output>
void decode_plain_rows(const QuantizedTensor& operand, Output* output, size_t begin, size_t end) {
  const From* values = operand.values.as<From>();
  const size_t rows = static_cast<size_t>(operand.rows);
  const size_t inner = static_cast<size_t>(operand.inner);
  for (size_t row = begin; row < end; ++row) {
    for (size_t k = 0; k < inner; ++k) {
      const float value = to_float(values[operand.transposed ? k * rows + row : row * inner + k]);
      if constexpr (sizeof(Output) == sizeof(float)) {
        output[row * inner + k] = value;
      } else {
        output[row * inner + k] = bf16_nearest(value);
      }
    }
  }
}

template <class Output>
void dequantize_to(const QuantizedTensor& operand, Output* output) {
  parallel_for(static_cast<size_t>(operand.rows), 16, [&](size_t begin, size_t end) {
    switch (operand.format) {
      case Format::nvfp4: decode_rows(operand, output, begin, end); break;
      case Format::bf16: decode_plain_rows<BFloat16>(operand, output, begin, end); break;
      case Format::f32: decode_plain_rows<float>(operand, output, begin, end); break;
    }
  });
}

}  // namespace

QuantizedTensor quantize(const QuantizeProblem& problem, const QuantizedTensor& storage) {
  const Shape shape = operand_shape(problem);
  NIBBLE_CHECK(problem.source.dtype() == DType::f32 || problem.source.dtype() == DType::bf16, "source dtype");
  NIBBLE_CHECK(storage.format == problem.spec.format, "storage of another format");
  NIBBLE_CHECK(storage.rows == shape.rows && storage.inner == shape.inner, "storage of another shape");
  return problem.spec.format == Format::nvfp4 ? nvfp4_operand(problem, storage) : plain_operand(problem, storage);
}

void dequantize(const QuantizedTensor& operand, const Tensor& output) {
  NIBBLE_CHECK(output.elements() == operand.rows * operand.inner, "output of another shape");
  if (output.dtype() == DType::f32) {
    dequantize_to(operand, output.as<float>());
  } else {
    dequantize_to(operand, output.as<BFloat16>());
  }
}

bool source_was_finite(const QuantizedTensor& operand) {
  return operand.format != Format::nvfp4 || is_finite(operand.tensor_scale.as<float>()[1]);
}

int64_t count_non_finite(const Tensor& tensor) {
  std::atomic<int64_t> found{0};
  parallel_for(static_cast<size_t>(tensor.elements()), span_grain, [&](size_t begin, size_t end) {
    const int64_t here = tensor.dtype() == DType::bf16 ? non_finite_in_span(tensor.as<BFloat16>() + begin, end - begin)
                                                       : non_finite_in_span(tensor.as<float>() + begin, end - begin);
    found.fetch_add(here, std::memory_order_relaxed);
  });
  return found.load();
}

}  // namespace cpu

QuantizedTensor quantize(const QuantizeProblem& problem, const QuantizedTensor& storage) {
  check_supported(problem.spec, "operand");
  NIBBLE_CHECK(problem.spec.from == Source::original, "the caller decides what the source is");
  return NIBBLE_DISPATCH(problem.source.device(), quantize, problem, storage);
}

void dequantize(const QuantizedTensor& operand, const Tensor& output) {
  NIBBLE_DISPATCH(output.device(), dequantize, operand, output);
}

bool source_was_finite(const QuantizedTensor& operand) {
  return NIBBLE_DISPATCH(operand.tensor_scale.device(), source_was_finite, operand);
}

int64_t count_non_finite(const Tensor& tensor) {
  return NIBBLE_DISPATCH(tensor.device(), count_non_finite, tensor);
}

}  // namespace nibble
