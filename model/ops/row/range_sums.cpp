#include "model/ops/row/range_sums.h"

#include <algorithm>

#include "dist/device/thread_pool.h"
#include "model/ops/row/lanes.h"
#include "model/ops/row/row_math.h"

namespace nibble {
namespace {

constexpr size_t column_grain = 512;

struct Rows {
  const float* values;  // [count, features]
  size_t count, features;
  bool continues;
};

// Adds the sum of the rows to columns [begin, end) of a gradient, where begin is a multiple of 32.
NIBBLE_VECTORIZE void add_rows(const Rows& rows, size_t begin, size_t end, float* gradient) {
  const size_t features = rows.features;
  const size_t whole = features / pair_lanes * pair_lanes;
  Lanes before[2];
  Lanes sum[2];
  Lanes value;
  size_t i = begin;
  for (; i < std::min(end, whole); i += pair_lanes) {
    load_pairs(before[0], before[1], gradient + i);
    for (size_t half = 0; half < 2; ++half) {
      sum[half] = rows.continues ? before[half] : Lanes{};
      for (size_t row = 0; row < rows.count; ++row) {
        load(value, rows.values + row * features + i + half * lanes);
        sum[half] += value;
      }
      if (!rows.continues) sum[half] += before[half];
    }
    store_pairs(gradient + i, sum[0], sum[1]);
  }
  for (; i < end; ++i) {
    float total = rows.continues ? gradient[i] : 0;
    for (size_t row = 0; row < rows.count; ++row) total += rows.values[row * features + i];
    gradient[i] = rows.continues ? total : gradient[i] + total;
  }
}

}  // namespace

void cpu::add_range_sums(const RangeSums& problem) {
  const Rows rows{problem.sums.as<float>(), static_cast<size_t>(problem.sums.rows()),
                  static_cast<size_t>(problem.gradient.elements()), problem.continues};
  float* const gradient = problem.gradient.as<float>();
  parallel_for(rows.features, column_grain, [=](size_t begin, size_t end) { add_rows(rows, begin, end, gradient); });
}

}  // namespace nibble
