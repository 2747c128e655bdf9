// Compares addition and SwiGLU with FP64.
#include "model/ops/elementwise.h"

#include <cmath>

#include "model/ops/swiglu.h"
#include "model/ops_support.h"

namespace nibble {
namespace {

using namespace test;

template <class T>
class Elementwise : public ::testing::Test {};
using StorageTypes = ::testing::Types<float, BFloat16>;
TYPED_TEST_SUITE(Elementwise, StorageTypes);

TYPED_TEST(Elementwise, AddRoundsOnce) {
  constexpr int64_t count = 100003;  // several chunks and a rest
  const Values a_values = random_values(1, count);
  const Values b_values = random_values(2, count, 1e-3);
  Values sums;
  for (size_t i = 0; i < a_values.size(); ++i) sums.push_back(a_values[i] + b_values[i]);
  auto a = stored<TypeParam>(a_values);
  auto b = stored<TypeParam>(b_values);
  std::vector<TypeParam> output(count);
  add(view(a, {count}), view(b, {count}), view(output, {count}));
  EXPECT_EQ(bytes_of(output), bytes_of(stored<TypeParam>(sums)));

  add(view(a, {count}), view(b, {count}), view(a, {count}));
  EXPECT_EQ(bytes_of(a), bytes_of(output)) << "the output may be the first operand";
  a = stored<TypeParam>(a_values);
  add(view(a, {count}), view(b, {count}), view(b, {count}));
  EXPECT_EQ(bytes_of(b), bytes_of(output)) << "the output may be the second operand";
}

TYPED_TEST(Elementwise, FillZeroClearsEveryByteOfItsTensorOnly) {
  auto values = stored<TypeParam>(random_values(3, 300001, 100));
  const auto before = values;
  const int64_t count = static_cast<int64_t>(values.size());
  const int64_t last = count - 1;
  fill_zero(view(values, {count}).slice(1, last));
  for (int64_t i = 1; i < last; ++i) ASSERT_EQ(to_float(values[static_cast<size_t>(i)]), 0.0f) << i;
  EXPECT_EQ(values.front(), before.front());
  EXPECT_EQ(values.back(), before.back());
}

TEST(Elementwise, RefusesShapesThatDiffer) {
  std::vector<float> a(6);
  std::vector<float> b(5);
  EXPECT_THROW(add(view(a, {6}), view(b, {5}), view(a, {6})), Error);
  std::vector<BFloat16> c(6);
  EXPECT_THROW(add(view(a, {6}), view(c, {6}), view(a, {6})), Error);
}

constexpr size_t tokens = 37;
constexpr size_t features = 83;  // not a whole number of vectors

template <class T>
struct SwigluResult {
  std::vector<T> output = std::vector<T>(tokens * features);
  std::vector<T> gradient = std::vector<T>(2 * tokens * features);
};

template <class T>
SwigluResult<T> run_swiglu(const Values& gate_up_values, const Values& grad_output_values) {
  auto gate_up = stored<T>(gate_up_values);
  auto grad_output = stored<T>(grad_output_values);
  SwigluResult<T> result;
  swiglu_forward({view(gate_up, {tokens, 2 * features}), view(result.output, {tokens, features})});
  swiglu_backward({view(grad_output, {tokens, features}), view(gate_up, {tokens, 2 * features}),
                   view(result.gradient, {tokens, 2 * features})});
  return result;
}

TEST(Swiglu, AgreesWithTheReference) {
  const Values gate_up = random_values(4, 2 * tokens * features, 20);
  const Values grad_output = random_values(5, tokens * features);
  const auto result = run_swiglu<float>(gate_up, grad_output);
  // The sigmoid is less than 6 roundoffs off, and each product adds one. In the slope, 1 - sigmoid is off by at most 7
  // roundoffs in absolute terms, times |gate| <= 20, times |up| <= 20.
  const Values expected = reference::swiglu(gate_up, features);
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(result.output[i]), expected[i], 9 * unit_roundoff * std::abs(expected[i])) << i;
  }
  expect_near(widened(result.gradient), reference::swiglu_backward(grad_output, gate_up, features),
              (7 * 20 + 10) * 20 * unit_roundoff, "gradient");
}

TEST(Swiglu, GradientIsTheDerivative) {
  const Values gate_up = random_values(6, 2 * tokens * features, 4);
  const Values grad_output = random_values(7, tokens * features);
  // A coordinate changes one output. Only that output is evaluated, so that no other rounding enters.
  Values differences;
  for (size_t at = 0; at < gate_up.size(); ++at) {
    const size_t row = at / (2 * features);
    const size_t column = at % features;
    const size_t gate = row * 2 * features + column;
    const Values pair = {gate_up[gate], gate_up[gate + features]};
    const Values both = finite_differences(
        pair, [&](const Values& x) { return grad_output[row * features + column] * reference::swiglu(x, 1)[0]; });
    differences.push_back(at == gate ? both[0] : both[1]);
  }
  expect_near(reference::swiglu_backward(grad_output, gate_up, features), differences, 1e-8, "reference");
  expect_near(widened(run_swiglu<float>(gate_up, grad_output).gradient), differences,
              (7 * 4 + 10) * 4 * unit_roundoff + 1e-8, "FP32");
}

TEST(Swiglu, Bf16IsFp32RoundedOnce) {
  const Values gate_up = random_values(8, 2 * tokens * features, 8);
  const Values grad_output = random_values(9, tokens * features);
  const auto wide = run_swiglu<float>(gate_up, grad_output);
  const auto narrow = run_swiglu<BFloat16>(gate_up, grad_output);
  expect_rounded(narrow.output, wide.output, "output");
  expect_rounded(narrow.gradient, wide.gradient, "gradient");
}

TEST(Swiglu, ExtremeGatesStayFinite) {
  std::vector<float> gate_up = {-1000, 1000, -88, 0, 3, 3, 3, 3};
  std::vector<float> output(4);
  std::vector<float> gradient(8);
  std::vector<float> grad_output(4, 1.0f);
  swiglu_forward({view(gate_up, {1, 8}), view(output, {1, 4})});
  EXPECT_EQ(output[0], 0.0f);
  EXPECT_EQ(output[1], 3000.0f);
  EXPECT_EQ(output[3], 0.0f);
  swiglu_backward({view(grad_output, {1, 4}), view(gate_up, {1, 8}), view(gradient, {1, 8})});
  EXPECT_EQ(gradient[0], 0.0f);
  EXPECT_EQ(gradient[1], 3.0f);
  EXPECT_EQ(gradient[3], 1.5f);
  for (float value : gradient) EXPECT_TRUE(std::isfinite(value));
}

TEST(Swiglu, ThreadsChangeNoBit) {
  const Values gate_up = random_values(10, 2 * tokens * features, 8);
  const Values grad_output = random_values(11, tokens * features);
  expect_same_for_any_threads([&] {
    const auto result = run_swiglu<BFloat16>(gate_up, grad_output);
    return bytes_of(result.output) + bytes_of(result.gradient);
  });
}

}  // namespace
}  // namespace nibble
