#include "optim/gradient_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/vectorize.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"

namespace nibble {
namespace {

constexpr size_t blocks_at_once = 8;

// Squares of floats do not overflow a double.
NIBBLE_VECTORIZE double sum_of_squares(const float* values, size_t count) {
  constexpr size_t lanes = 16;
  double lane[lanes] = {};
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (size_t j = 0; j < lanes; ++j) {
      const double value = values[i + j];
      lane[j] += value * value;
    }
  }
  for (size_t j = 0; i < count; ++i, ++j) {
    const double value = values[i];
    lane[j] += value * value;
  }
  for (size_t width = lanes / 2; width > 0; width /= 2) {
    for (size_t j = 0; j < width; ++j) lane[j] += lane[j + width];
  }
  return lane[0];
}

}  // namespace

namespace cpu {

static void sum_squares(const SquareSums& problem) {
  const auto count = static_cast<size_t>(problem.shard.elements());
  const float* const values = problem.shard.as<float>();
  parallel_for(problem.sums.size(), blocks_at_once, [&](size_t begin, size_t end) {
    for (size_t block = begin; block < end; ++block) {
      const size_t first = block * norm_block;
      problem.sums[block] = sum_of_squares(values + first, std::min<size_t>(norm_block, count - first));
    }
  });
}

}  // namespace cpu

GradientNorm gradient_norm(Communicator& communicator, const Placement& owned, const Tensor& shard) {
  const ProfileScope scope(OperatorFamily::optimizer, "gradient_norm");
  const int rank = communicator.rank();
  NIBBLE_CHECK(owned.ranks() == communicator.size() && static_cast<uint64_t>(shard.elements()) == owned.elements(rank),
               "gradient shard");
  std::vector<uint64_t> offsets;  // where each rank's block sums begin, in bytes
  offsets.reserve(static_cast<size_t>(communicator.size()) + 1);
  for (const uint64_t bound : boundaries(owned)) offsets.push_back(div_ceil(bound, norm_block) * sizeof(double));
  const uint64_t blocks = offsets.back() / sizeof(double);

  std::vector<double> sums(blocks);
  const SquareSums own{shard, std::span(sums).subspan(offsets[static_cast<size_t>(rank)] / sizeof(double),
                                                      div_ceil(owned.elements(rank), norm_block))};
  NIBBLE_DISPATCH(shard.device(), sum_squares, own);
  communicator.host().all_gather(std::as_writable_bytes(std::span(sums)), offsets);
  double total = 0;
  for (const double sum : sums) total += sum;
  return {std::sqrt(total), std::isfinite(total)};
}

float clip_scale(double norm, double max_norm) {
  if (max_norm <= 0 || norm <= max_norm) return 1;
  return static_cast<float>(max_norm / norm);
}

}  // namespace nibble
