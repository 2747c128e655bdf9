#include "quant/quantize/quantize_rows.h"

#include <algorithm>
#include <limits>

#include "dist/base/error.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "quant/format/codec.h"
#include "quant/quantize/cpu/cast.h"
#include "quant/quantize/quantize_problem.h"

namespace nibble {
namespace cpu {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

template <class Body>
void for_each_position(const RowBlockSource& source, int64_t row, const Body& body) {
  const int64_t last_row = std::min(row + lanes, source.rows);
  for_each_row_block({row, last_row, 0, source.inner}, [&](const RowBlockBounds& bounds) {
    RowBlock row_block;
    load_row_block(source, bounds, row_block);
    body(bounds, row_block);
  });
}

}  // namespace

QuantizedTensor quantize_rows(const QuantizeProblem& problem, const QuantizedTensor& storage,
                              const Tensor& row_scales) {
  check_source(problem, storage);
  check_storage(problem, storage);
  const RowBlockSource source = row_block_source(problem.source, false, problem.spec, problem.signs);
  const float largest = largest_for_scale(problem.spec);
  QuantizedTensor operand = storage;
  operand.tensor_scale = row_scales;
  auto* const scales = row_scales.as<float>();
  parallel_for(static_cast<size_t>(div_ceil<int64_t>(source.rows, lanes)), 1, [&](size_t begin, size_t end) {
    for (int64_t row = static_cast<int64_t>(begin) * lanes; row < static_cast<int64_t>(end) * lanes; row += lanes) {
      LaneWords amax{};
      for_each_position(source, row, [&](const RowBlockBounds& bounds, const RowBlock& row_block) {
        include_lane_maxima(row_block, bounds.positions, amax);
      });
      TensorScale of_lane[lanes];
      for (int lane = 0; lane < lanes; ++lane) {
        const float of_row = float_of_bits(amax.word[lane]);
        of_lane[lane] = tensor_scale_of(of_row, largest);
        if (row + lane >= source.rows) continue;
        scales[2 * (row + lane)] = is_finite(of_row) ? of_lane[lane].decode : nan;
        scales[2 * (row + lane) + 1] = of_row;
      }
      const CastProblem cast{
          .spec = problem.spec,
          .noise = problem.noise,
          .row_scales = of_lane,
          .rows = source.rows,
          .inner = source.inner,
          .layout = storage.layout,
          .codes = storage.values.as<uint8_t>(),
          .block_scales = storage.block_scales.empty() ? nullptr : storage.block_scales.as<uint8_t>()};
      for_each_position(source, row, [&](const RowBlockBounds& bounds, const RowBlock& row_block) {
        cast_row_block(cast, bounds, row_block);
      });
    }
  });
  return operand;
}

// Returns whether rows are made together although each needs a scale of its own.
static bool scales_rows_together() {
  return true;
}

}  // namespace cpu

namespace {

bool shares_scale(const QuantizeProblem& problem) {
  return is_quantized(problem.spec.format) && needs_amax_pass(problem) && problem.source.rows() > 1;
}

}  // namespace

bool can_quantize_rows(const QuantizeProblem& problem) {
  if (!is_quantized(problem.spec.format)) return true;
  if (has_rounding_noise(problem.spec)) return false;
  return !shares_scale(problem) || NIBBLE_DISPATCH(problem.source.device(), scales_rows_together);
}

QuantizedTensor quantize_rows(const QuantizeProblem& problem, const QuantizedTensor& storage,
                              const Tensor& row_scales) {
  NIBBLE_CHECK(!problem.transpose && can_quantize_rows(problem), "rows that can be made together");
  QuantizeProblem rows = problem;
  rows.spec.block = BlockShape::row;
  if (!shares_scale(rows)) return quantize(rows, storage);
  const ProfileScope scope(OperatorFamily::quantize, "quantize_rows");
  check_supported(rows.spec, "operand");
  NIBBLE_CHECK(row_scales.dtype() == DType::f32 && row_scales.elements() == 2 * rows.source.rows(),
               "a scale for each row");
  return NIBBLE_DISPATCH(rows.source.device(), quantize_rows, rows, storage, row_scales);
}

}  // namespace nibble
