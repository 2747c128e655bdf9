// Compares the norms of query and key heads with the norm of rows, which has tests of its own, and with FP64.
#include "model/ops/norm/head_norm.h"

#include "model/ops/norm/rms_norm.h"
#include "model/ops_support.h"

namespace nibble {
namespace {

using namespace test;

constexpr double epsilon = 0x1p-10;  // exact in FP32

struct Problem {
  int64_t tokens;
  HeadShape shape;
  Values input = random_values(1, elements(), 3);
  Values gradient = random_values(2, elements());
  Values query_weight = random_values(3, dim(), 2);
  Values key_weight = random_values(4, dim(), 2);
  Values grad_query_weight = random_values(5, dim());  // before the call
  Values grad_key_weight = random_values(6, dim());

  size_t elements() const { return static_cast<size_t>(tokens * shape.features()); }
  size_t dim() const { return static_cast<size_t>(shape.head_dim); }

  // Returns heads [first, first + count) of each row, a head a row.
  Values heads(const Values& rows, int64_t first, int64_t count) const {
    Values result;
    for (int64_t token = 0; token < tokens; ++token) {
      const auto begin = rows.begin() + token * shape.features() + first * shape.head_dim;
      result.insert(result.end(), begin, begin + count * shape.head_dim);
    }
    return result;
  }
};

// Heads are a multiple of the vectors' 32 elements and not, and more than are processed together; tokens are more than
// ranges, and fewer.
const std::vector<Problem>& problems() {
  static const std::vector<Problem> all = {{1, {1, 1, 2}},     {5, {4, 2, 12}},   {70, {6, 3, 48}},
                                           {97, {20, 17, 32}}, {40, {2, 1, 128}}, {33, {3, 1, 66}}};
  return all;
}

template <class T>
struct Result {
  std::vector<T> output, gradient;
  std::vector<float> inverse_rms, grad_query_weight, grad_key_weight;
};

template <class T>
Result<T> run(const Problem& problem) {
  const HeadShape& shape = problem.shape;
  const int64_t tokens = problem.tokens;
  auto input = stored<T>(problem.input);
  auto query_weight = stored<T>(problem.query_weight);
  auto key_weight = stored<T>(problem.key_weight);
  Result<T> result;
  result.output.resize(input.size());
  result.gradient = stored<T>(problem.gradient);
  result.inverse_rms.resize(static_cast<size_t>(tokens * shape.normed_heads()));
  result.grad_query_weight = stored<float>(problem.grad_query_weight);
  result.grad_key_weight = stored<float>(problem.grad_key_weight);
  // Old contents of the workspace must not matter.
  std::vector<float> workspace(static_cast<size_t>(token_ranges * shape.normed_heads() * shape.head_dim),
                               std::nanf(""));
  const Tensor rows = view(input, {tokens, shape.features()});
  const Tensor inverse_rms = view(result.inverse_rms, {tokens, shape.normed_heads()});
  head_norm_forward({.shape = shape,
                     .input = rows,
                     .query_weight = view(query_weight, {shape.head_dim}),
                     .key_weight = view(key_weight, {shape.head_dim}),
                     .epsilon = epsilon,
                     .output = view(result.output, {tokens, shape.features()}),
                     .inverse_rms = inverse_rms});
  head_norm_backward({.shape = shape,
                      .gradient = view(result.gradient, {tokens, shape.features()}),
                      .input = rows,
                      .query_weight = view(query_weight, {shape.head_dim}),
                      .key_weight = view(key_weight, {shape.head_dim}),
                      .inverse_rms = inverse_rms,
                      .grad_query_weight = view(result.grad_query_weight, {shape.head_dim}),
                      .grad_key_weight = view(result.grad_key_weight, {shape.head_dim}),
                      .workspace = view(workspace, {token_ranges, shape.normed_heads(), shape.head_dim})});
  return result;
}

// Each head has the bits of a row of rms_norm.
TEST(HeadNorm, HeadsAreRowsOfTheRmsNorm) {
  for (const Problem& problem : problems()) {
    const HeadShape& shape = problem.shape;
    const Result<BFloat16> result = run<BFloat16>(problem);
    for (const bool key : {false, true}) {
      const int64_t first = key ? shape.query_heads : 0;
      const int64_t count = key ? shape.kv_heads : shape.query_heads;
      auto rows = stored<BFloat16>(problem.heads(problem.input, first, count));
      auto weight = stored<BFloat16>(key ? problem.key_weight : problem.query_weight);
      auto grad_output = stored<BFloat16>(problem.heads(problem.gradient, first, count));
      std::vector<BFloat16> output(rows.size());
      std::vector<BFloat16> grad_input(rows.size());
      std::vector<float> inverse(static_cast<size_t>(problem.tokens * count));
      std::vector<float> grad_weight(problem.dim());
      std::vector<float> workspace(static_cast<size_t>(token_ranges * shape.head_dim));
      const int64_t all = problem.tokens * count;
      rms_norm_forward({view(rows, {all, shape.head_dim}), view(weight, {shape.head_dim}), epsilon,
                        view(output, {all, shape.head_dim}), view(inverse, {all})});
      rms_norm_backward({view(grad_output, {all, shape.head_dim}), view(rows, {all, shape.head_dim}),
                         view(weight, {shape.head_dim}), view(inverse, {all}), view(grad_input, {all, shape.head_dim}),
                         view(grad_weight, {shape.head_dim}), view(workspace, {token_ranges, shape.head_dim})});
      EXPECT_EQ(problem.heads(widened(result.output), first, count), widened(output));
      EXPECT_EQ(problem.heads(widened(result.gradient), first, count), widened(grad_input));
    }
    // Values are copied, and so are their gradients.
    EXPECT_EQ(problem.heads(widened(result.output), shape.normed_heads(), shape.kv_heads),
              problem.heads(problem.input, shape.normed_heads(), shape.kv_heads));
    EXPECT_EQ(problem.heads(widened(result.gradient), shape.normed_heads(), shape.kv_heads),
              problem.heads(problem.gradient, shape.normed_heads(), shape.kv_heads));
  }
}

TEST(HeadNorm, GradientsOfTheWeightsAgreeWithTheReference) {
  for (const Problem& problem : problems()) {
    const HeadShape& shape = problem.shape;
    const Result<float> result = run<float>(problem);
    for (const bool key : {false, true}) {
      const int64_t first = key ? shape.query_heads : 0;
      const int64_t count = key ? shape.kv_heads : shape.query_heads;
      const Values input = problem.heads(problem.input, first, count);
      const auto gradients = reference::rms_norm_backward(problem.heads(problem.gradient, first, count), input,
                                                          key ? problem.key_weight : problem.query_weight, epsilon);
      Values expected = key ? problem.grad_key_weight : problem.grad_query_weight;
      for (size_t i = 0; i < expected.size(); ++i) expected[i] += gradients.weight[i];
      // As many terms as heads, each at most sqrt(head_dim), whose norm has the roundoffs of a sum over 16 lanes.
      const double terms = static_cast<double>(problem.tokens * count);
      const double roundoffs = static_cast<double>(shape.head_dim) / 16 + 16 + terms;
      expect_near(widened(key ? result.grad_key_weight : result.grad_query_weight), expected,
                  roundoffs * unit_roundoff * (1 + terms * std::sqrt(static_cast<double>(shape.head_dim))),
                  key ? "key weight" : "query weight");
    }
  }
}

// The gradients of the weights are formed from zero and then added.
TEST(HeadNorm, GradientsOfTheWeightsAreAddedOnce) {
  for (const Problem& problem : problems()) {
    Problem from_zero = problem;
    from_zero.grad_query_weight.assign(problem.dim(), 0);
    from_zero.grad_key_weight.assign(problem.dim(), 0);
    const Result<BFloat16> sum = run<BFloat16>(from_zero);
    const Result<BFloat16> added = run<BFloat16>(problem);
    for (size_t i = 0; i < problem.dim(); ++i) {
      EXPECT_EQ(added.grad_query_weight[i],
                static_cast<float>(problem.grad_query_weight[i]) + sum.grad_query_weight[i]);
      EXPECT_EQ(added.grad_key_weight[i], static_cast<float>(problem.grad_key_weight[i]) + sum.grad_key_weight[i]);
    }
  }
}

TEST(HeadNorm, ThreadsChangeNoBit) {
  for (const Problem& problem : problems()) {
    expect_same_for_any_threads([&] {
      const auto result = run<BFloat16>(problem);
      return bytes_of(result.output) + bytes_of(result.gradient) + bytes_of(result.inverse_rms) +
             bytes_of(result.grad_query_weight) + bytes_of(result.grad_key_weight);
    });
  }
}

TEST(HeadNorm, RefusesWhatDoesNotFit) {
  std::vector<float> rows(48);
  std::vector<float> weight(8);
  std::vector<float> inverse(4);
  HeadNormForward problem{.shape = {1, 1, 8},
                          .input = view(rows, {2, 24}),
                          .query_weight = view(weight, {8}),
                          .key_weight = view(weight, {8}),
                          .epsilon = epsilon,
                          .output = view(rows, {2, 24}),
                          .inverse_rms = view(inverse, {2, 2})};
  problem.shape.kv_heads = 2;
  EXPECT_THROW(head_norm_forward(problem), Error);
  problem.shape.kv_heads = 1;
  problem.inverse_rms = view(inverse, {4, 1});
  EXPECT_THROW(head_norm_forward(problem), Error);
}

}  // namespace
}  // namespace nibble
