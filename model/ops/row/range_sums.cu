#include "model/ops/row/range_sums.h"

#include "dist/device/launch.cuh"

namespace nibble::cuda {
namespace {

struct Rows {
  const float* values;  // [count, features]
  float* gradient;
  int64_t count, features;
  bool continues;
};

__global__ void range_sums_kernel(Rows rows) {
  const int64_t column = global_thread();
  if (column >= rows.features) return;
  const float before = rows.gradient[column];
  float sum = rows.continues ? before : 0.0f;
#pragma unroll 16
  for (int64_t row = 0; row < rows.count; ++row) sum += rows.values[row * rows.features + column];
  rows.gradient[column] = rows.continues ? sum : before + sum;
}

}  // namespace

void add_range_sums(const RangeSums& problem) {
  const Rows rows{.values = problem.sums.as<float>(),
                  .gradient = problem.gradient.as<float>(),
                  .count = problem.sums.rows(),
                  .features = problem.gradient.elements(),
                  .continues = problem.continues};
  constexpr int threads = 128;
  launch("add_range_sums", range_sums_kernel, one_thread_each(rows.features, threads), rows);
}

}  // namespace nibble::cuda
