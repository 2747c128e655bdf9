#include "model/ops/loss/divergence.h"

#include <cmath>

#include "dist/base/vectorize.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "model/ops/row/row_math.h"
#include "model/ops/row/storage.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {
namespace {

constexpr int64_t sums_of_token = 3;
constexpr size_t token_grain = 4;

// A row in the order of warp_row_sum() (model/ops/row/row_sum.cuh).
struct PairedValues {
  const float* row;
  NIBBLE_INLINE void load(size_t i, Lanes& even, Lanes& odd) const { load_pairs(even, odd, row + i); }
  NIBBLE_INLINE float one(size_t i) const { return row[i]; }
};

struct Row {
  float* p;
  const float* q;
  float* exponentials;  // scratch
  float* sums;
};

NIBBLE_VECTORIZE void row_sums(const Row& row, size_t vocab) {
  const float largest_p = row_maximum(row.p, vocab);
  const float largest_q = row_maximum(row.q, vocab);
  write_exponentials(row.q, largest_q, row.exponentials, vocab);
  row.sums[1] = row_sum(vocab, PairedValues{row.exponentials});
  write_exponentials(row.p, largest_p, row.exponentials, vocab);
  row.sums[0] = row_sum(vocab, PairedValues{row.exponentials});
#pragma GCC ivdep
  for (size_t i = 0; i < vocab; ++i) row.p[i] = row.exponentials[i] * ((row.p[i] - largest_p) - (row.q[i] - largest_q));
  row.sums[2] = row_sum(vocab, PairedValues{row.p});
}

}  // namespace

namespace cpu {

void divergence_sums(const DivergenceSums& problem) {
  const auto vocab = static_cast<size_t>(problem.p.cols());
  float* const p = problem.p.as<float>();
  const float* const q = problem.q.as<float>();
  float* const sums = problem.sums.as<float>();
  parallel_for(static_cast<size_t>(problem.p.rows()), token_grain, [=](size_t begin, size_t end) {
    std::vector<float> exponentials(vocab);
    for (size_t i = begin; i < end; ++i) {
      row_sums({p + i * vocab, q + i * vocab, exponentials.data(), sums + i * sums_of_token}, vocab);
    }
  });
}

}  // namespace cpu

void divergence_sums(const DivergenceSums& problem) {
  const ProfileScope scope(OperatorFamily::head, "divergence_sums");
  check_matrix(problem.p, DType::f32, problem.p.rows(), problem.p.cols());
  check_matrix(problem.q, DType::f32, problem.p.rows(), problem.p.cols());
  check_matrix(problem.sums, DType::f32, problem.p.rows(), sums_of_token);
  NIBBLE_DISPATCH(problem.p.device(), divergence_sums, problem);
}

// With A and B the sums of exponentials, p = exp(a) / A and q = exp(b) / B: the mean of a - b under p, less ln(A / B).
std::vector<double> divergences(const Tensor& sums) {
  const HostCopy copy(sums);
  const std::span<const float> values = copy.as<float>();
  std::vector<double> result;
  for (size_t i = 0; i + sums_of_token <= values.size(); i += sums_of_token) {
    const double of_p = values[i];
    const double of_q = values[i + 1];
    result.push_back(static_cast<double>(values[i + 2]) / of_p - std::log(of_p / of_q));
  }
  return result;
}

}  // namespace nibble
