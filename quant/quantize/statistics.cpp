#include "quant/quantize/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/vectorize.h"
#include "dist/device/dispatch.h"
#include "dist/device/thread_pool.h"
#include "quant/format/codec.h"
#include "quant/quantize/cpu/decode.h"
#include "quant/quantize/cpu/row_block.h"

namespace nibble {
namespace cpu {
namespace {

// The FP32 scales are rounded quotients, so an element counts as clipped only if it is beyond reach by more than their
// rounding error.
constexpr double reach_tolerance = 1 + 0x1p-22;

struct alignas(64) LaneDoubles {
  double value[lanes];
};
struct alignas(64) LaneCounts {
  int32_t value[lanes];
};

// The sums over a row block, in the units of the source.
struct RowBlockSums {
  LaneDoubles squares{}, products{}, quantized_squares{}, error_squares{};
  LaneCounts nonzero{}, underflowed{}, clipped{}, zeros{};
};

// The positions of a row block that share a block scale.
struct ScaleBlock {
  int first = 0, positions = 0;
  LaneDoubles scale_above;  // the FP32 scales: decoded values times this are the operand's
  LaneDoubles reach;        // largest magnitude that a code stands for
};

NIBBLE_VECTORIZE void add_block(const RowBlock& source, const RowBlock& decoded, const ScaleBlock& block,
                                RowBlockSums& sums) {
  for (int position = block.first; position < block.first + block.positions; ++position) {
    for (int lane = 0; lane < lanes; ++lane) {
      const double x = source.value[position][lane];
      const double q = decoded.value[position][lane] * block.scale_above.value[lane];
      sums.squares.value[lane] += x * x;
      sums.products.value[lane] += x * q;
      sums.quantized_squares.value[lane] += q * q;
      sums.error_squares.value[lane] += (x - q) * (x - q);
      sums.nonzero.value[lane] += x != 0 ? 1 : 0;
      sums.underflowed.value[lane] += x != 0 && q == 0 ? 1 : 0;
      sums.clipped.value[lane] += std::fabs(x) > block.reach.value[lane] ? 1 : 0;
      sums.zeros.value[lane] += q == 0 ? 1 : 0;
    }
  }
}

struct Measuring {
  RowBlockSource source;
  const QuantizedTensor& operand;
  FormatTraits traits;
  double rotation;  // a length in the source's units times this is a length of the orthogonal rotation
};

// Sets values[i] to element first + i of a row, before the FP32 scales.
void decode_values(const QuantizedTensor& operand, int64_t row, int64_t first, int count, float* values) {
  if (is_quantized(operand.format)) return decode_chunk(operand, row, first, count, values);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = operand.transposed ? (first + i) * operand.rows + row : row * operand.inner + first + i;
    values[i] =
        operand.format == Format::f32 ? operand.values.as<float>()[at] : to_float(operand.values.as<BFloat16>()[at]);
  }
}

// Decodes the operand's part of a row block. Lanes without a row keep their values.
void load_decoded(const QuantizedTensor& operand, const RowBlockBounds& bounds, int64_t present, RowBlock& decoded) {
  alignas(64) float values[row_block_positions];
  for (int64_t lane = 0; lane < present; ++lane) {
    decode_values(operand, bounds.row + lane, bounds.position, bounds.positions, values);
    for (int position = 0; position < bounds.positions; ++position) decoded.value[position][lane] = values[position];
  }
}

double scale_above(const QuantizedTensor& operand, int64_t row, int64_t position) {
  if (!is_quantized(operand.format)) return 1;
  const double tensor = operand.tensor_scale.as<float>()[0];
  if (operand.outer_scales.empty()) return tensor;
  return tensor *
         operand.outer_scales.as<float>()[row * (operand.inner / row_block_positions) + position / row_block_positions];
}

void include_scale(double scale, OperandStatistics& statistics) {
  if (scale == 0) return;
  const bool first = statistics.smallest_scale == 0;
  statistics.smallest_scale = first ? scale : std::min(statistics.smallest_scale, scale);
  statistics.largest_scale = std::max(statistics.largest_scale, scale);
}

// Counts the scale of one row of a block; returns its value.
double count_scale(const Measuring& measuring, int64_t row, int64_t position, bool all_zero, double above,
                   OperandStatistics& statistics) {
  const QuantizedTensor& operand = measuring.operand;
  const uint32_t code = block_scale_of(operand, row, position / measuring.traits.block);
  const bool e4m3 = measuring.traits.block_scale == ScaleCode::e4m3;
  const double scale = e4m3 ? e4m3_to_float(code) : e8m0_to_float(code);
  ++statistics.blocks;
  statistics.scales_largest += code == (e4m3 ? 0x7Eu : 0xFEu) ? 1 : 0;
  statistics.scales_subnormal += e4m3 && code > 0 && code < 8 ? 1 : 0;
  statistics.scales_zero += scale == 0 && !all_zero ? 1 : 0;
  if (!all_zero) include_scale(scale * above * measuring.rotation, statistics);
  return scale;
}

bool all_zero_in_lane(const RowBlock& row_block, int first, int positions, int64_t lane) {
  for (int position = first; position < first + positions; ++position) {
    if (row_block.value[position][lane] != 0) return false;
  }
  return true;
}

void add_sums(const RowBlockSums& sums, int64_t present, double rotation, OperandStatistics& statistics) {
  const double squared = rotation * rotation;
  for (int64_t lane = 0; lane < present; ++lane) {
    statistics.sum_squares += sums.squares.value[lane] * squared;
    statistics.sum_products += sums.products.value[lane] * squared;
    statistics.quantized_squares += sums.quantized_squares.value[lane] * squared;
    statistics.error_squares += sums.error_squares.value[lane] * squared;
    statistics.nonzero += sums.nonzero.value[lane];
    statistics.underflowed += sums.underflowed.value[lane];
    statistics.clipped += sums.clipped.value[lane];
    statistics.zeros += sums.zeros.value[lane];
  }
}

void measure_row_block(const Measuring& measuring, const RowBlockBounds& bounds, OperandStatistics& statistics) {
  const int64_t present = std::min<int64_t>(measuring.operand.rows - bounds.row, lanes);
  RowBlock source;
  RowBlock decoded{};
  load_row_block(measuring.source, bounds, source);
  load_decoded(measuring.operand, bounds, present, decoded);
  RowBlockSums sums;
  const int step = measuring.traits.block == 0 ? bounds.positions : measuring.traits.block;
  for (int first = 0; first < bounds.positions; first += step) {
    ScaleBlock block{.first = first, .positions = step, .scale_above = {}, .reach = {}};
    for (int64_t lane = 0; lane < present; ++lane) {
      const double above = scale_above(measuring.operand, bounds.row + lane, bounds.position);
      double scale = 1;
      if (measuring.traits.block != 0) {
        const bool all_zero = all_zero_in_lane(source, first, step, lane);
        scale = count_scale(measuring, bounds.row + lane, bounds.position + first, all_zero, above, statistics);
      }
      const bool bounded = is_quantized(measuring.operand.format) && scale != 0;
      block.scale_above.value[lane] = above;
      block.reach.value[lane] = bounded ? measuring.traits.largest * scale * above * reach_tolerance
                                        : std::numeric_limits<double>::infinity();
    }
    add_block(source, decoded, block, sums);
  }
  statistics.elements += present * bounds.positions;
  add_sums(sums, present, measuring.rotation, statistics);
}

void add(const OperandStatistics& part, OperandStatistics& whole) {
  whole.elements += part.elements;
  whole.sum_squares += part.sum_squares;
  whole.sum_products += part.sum_products;
  whole.quantized_squares += part.quantized_squares;
  whole.error_squares += part.error_squares;
  whole.nonzero += part.nonzero;
  whole.underflowed += part.underflowed;
  whole.clipped += part.clipped;
  whole.zeros += part.zeros;
  whole.blocks += part.blocks;
  whole.scales_zero += part.scales_zero;
  whole.scales_largest += part.scales_largest;
  whole.scales_subnormal += part.scales_subnormal;
  include_scale(part.smallest_scale, whole);
  include_scale(part.largest_scale, whole);
}

double bits_an_element(const QuantizedTensor& operand) {
  if (!is_quantized(operand.format)) return operand.format == Format::f32 ? 32 : 16;
  const FormatTraits traits = traits_of(operand.format);
  return traits.code_bits + (traits.block == 0 ? 0.0 : 8.0 / traits.block) +
         (operand.outer_scales.empty() ? 0.0 : 32.0 / row_block_positions);
}

}  // namespace

OperandStatistics measure(const QuantizeProblem& problem, const QuantizedTensor& operand) {
  const Measuring measuring{.source = row_block_source(problem.source, problem.transpose, problem.spec, problem.signs),
                            .operand = operand,
                            .traits = traits_of(operand.format),
                            .rotation = std::exp2(-0.5 * operand.rotation_bits)};
  NIBBLE_CHECK(measuring.source.rows == operand.rows && measuring.source.inner == operand.inner,
               "an operand of another shape than its source");
  // The sums are taken over fixed ranges and added in order, so threads cannot change a bit.
  const RowBlockRanges cuts(measuring.source);
  std::vector<OperandStatistics> parts(cuts.count());
  parallel_for(parts.size(), 1, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) {
      for_each_row_block(cuts.range(index),
                         [&](const RowBlockBounds& bounds) { measure_row_block(measuring, bounds, parts[index]); });
    }
  });
  OperandStatistics statistics;
  for (const OperandStatistics& part : parts) add(part, statistics);
  const bool tensor_scale_only = is_quantized(operand.format) && measuring.traits.block == 0;
  if (tensor_scale_only) include_scale(operand.tensor_scale.as<float>()[0] * measuring.rotation, statistics);
  statistics.bits = bits_an_element(operand);
  return statistics;
}

}  // namespace cpu

OperandStatistics measure(const QuantizeProblem& problem, const QuantizedTensor& operand) {
  return NIBBLE_DISPATCH(problem.source.device(), measure, problem, operand);
}

namespace {

double share_of(int64_t part, int64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

double OperandStatistics::relative_error() const {
  return sum_squares == 0 ? 0 : error_squares / sum_squares;
}
double OperandStatistics::cosine() const {
  if (sum_squares == 0 && quantized_squares == 0) return 1;
  return quantized_squares == 0 ? 0 : sum_products / std::sqrt(sum_squares) / std::sqrt(quantized_squares);
}
double OperandStatistics::shrinkage() const {
  return sum_squares == 0 ? 0 : 1 - sum_products / sum_squares;
}
double OperandStatistics::effective_bits() const {
  return -0.5 * std::log2(relative_error());
}
double OperandStatistics::underflow_share() const {
  return share_of(underflowed, nonzero);
}
double OperandStatistics::clipped_share() const {
  return share_of(clipped, elements);
}
double OperandStatistics::extreme_scale_share() const {
  return share_of(scales_zero + scales_largest, blocks);
}

}  // namespace nibble
