// Compares BF16 x BF16 GEMMs with the scalar loop of their contract (quant/gemm/cpu/packed_matmul.h), bit for bit, with
// every kernel that this machine can run, whether or not its level prefers it.
#include "quant/gemm/cpu/bf16_gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "dist/base/error.h"
#include "dist/device/thread_pool.h"
#include "quant/bf16_fixture.h"

namespace nibble {
namespace {

struct Shape {
  int64_t m, n, k;
};
std::string describe(const Shape& shape, bool a_transposed, bool b_transposed) {
  return std::to_string(shape.m) + (a_transposed ? "^T" : "") + " x " + std::to_string(shape.n) +
         (b_transposed ? "^T" : "") + " x " + std::to_string(shape.k);
}

Operand make_bf16(Numbers numbers, bool transposed, int64_t rows, int64_t inner, uint32_t seed) {
  Operand operand = make_operand({Format::bf16, transposed}, rows, inner, seed);
  std::mt19937 generator(seed);
  operand.bf16 = draw(numbers, operand.bf16.size(), generator);
  return operand;
}

template <class Element>
std::vector<Element> multiply(const cpu::Bf16Kernels& kernels, Operand& a, Operand& b, std::vector<Element> output,
                              bool accumulate = false) {
  cpu::bf16_gemm_with(
      kernels, {a.view(), b.view(), Tensor(output.data(), DTypeOf<Element>::value, {a.rows, b.rows}), accumulate});
  return output;
}

// Compares f32, accumulated f32 and bf16 output with the reference.
void expect_contract(Operand& a, Operand& b, const std::string& what) {
  const std::vector<float> expected = reference_gemm(a, b);
  const std::vector<float> unset(expected.size(), std::numeric_limits<float>::quiet_NaN());
  std::vector<float> base(expected.size());
  for (size_t i = 0; i < base.size(); ++i) base[i] = static_cast<float>(i % 17) * 0.37F - 3.0F;
  std::vector<float> expected_sum(base);
  for (size_t i = 0; i < base.size(); ++i) expected_sum[i] += expected[i];
  std::vector<BFloat16> expected_bf16(expected.size());
  for (size_t i = 0; i < base.size(); ++i) expected_bf16[i] = bf16_nearest(expected[i]);
  for (const auto& [name, kernels] : bf16_kernels()) {
    EXPECT_EQ(first_difference(multiply(*kernels, a, b, unset), expected), -1) << what << ", " << name;
    EXPECT_EQ(first_difference(multiply(*kernels, a, b, base, true), expected_sum), -1) << what << ", added, " << name;
    EXPECT_EQ(first_difference(multiply(*kernels, a, b, std::vector<BFloat16>(expected.size())), expected_bf16), -1)
        << what << ", bf16, " << name;
  }
}

void expect_contract(Numbers numbers, const Shape& shape) {
  for (const bool a_transposed : {false, true}) {
    for (const bool b_transposed : {false, true}) {
      Operand a = make_bf16(numbers, a_transposed, shape.m, shape.k, 1);
      Operand b = make_bf16(numbers, b_transposed, shape.n, shape.k, 2);
      expect_contract(a, b, describe(shape, a_transposed, b_transposed));
    }
  }
}

class Bf16Gemm : public testing::Test {
 protected:
  void SetUp() override { set_compute_threads(1); }
};

TEST_F(Bf16Gemm, RaggedShapesEqualTheScalarLoopBitForBit) {
  for (const int64_t m : {1, 13, 14, 15, 43}) {
    for (const int64_t n : {1, 16, 31, 32, 33, 67}) {
      for (const int64_t k : {0, 1, 2, 31, 64, 65}) expect_contract(Numbers::normal, {m, n, k});
    }
  }
}

TEST_F(Bf16Gemm, MoreThanOnePassOverTheInnerAxis) {
  for (const int64_t k : {127, 128, 129, 255, 257, 511, 513, 1031}) expect_contract(Numbers::normal, {17, 35, k});
}

TEST_F(Bf16Gemm, MoreThanOneBlock) {
  expect_contract(Numbers::normal, {1021, 37, 65});
  expect_contract(Numbers::normal, {19, 1543, 65});
}

TEST_F(Bf16Gemm, SubnormalNumbersAreZero) {
  expect_contract(Numbers::tiny, {67, 67, 2});
  expect_contract(Numbers::tiny, {67, 67, 64});
  const auto one_gemm = [](float left, float right) {
    Operand a = make_bf16(Numbers::normal, false, 1, 1, 1);
    Operand b = make_bf16(Numbers::normal, false, 1, 1, 1);
    a.bf16[0] = bf16_nearest(left);
    b.bf16[0] = bf16_nearest(right);
    std::vector<float> results;
    for (const auto& [name, kernels] : bf16_kernels()) {
      results.push_back(multiply(*kernels, a, b, std::vector<float>(1))[0]);
    }
    return results;
  };
  for (const float result : one_gemm(0x1p-127F, 0x1p100F)) EXPECT_EQ(result, 0.0F);  // a subnormal factor
  for (const float result : one_gemm(0x1p-100F, 0x1p-27F)) EXPECT_EQ(result, 0.0F);  // a subnormal product
  for (const float result : one_gemm(0x1p-100F, 0x1p-26F)) EXPECT_EQ(result, 0x1p-126F);
}

TEST_F(Bf16Gemm, SubnormalNumbersAreKeptElsewhere) {
  expect_contract(Numbers::normal, {3, 3, 3});
  volatile float tiny = 0x1p-126F;
  EXPECT_EQ(tiny * 0.5F, 0x1p-127F);
}

TEST_F(Bf16Gemm, InfinitiesAndNanArrive) {
  expect_contract(Numbers::any_finite, {67, 67, 4});
  expect_contract(Numbers::any_finite, {33, 67, 64});
  expect_contract(Numbers::any, {67, 67, 2});
  expect_contract(Numbers::any, {33, 67, 64});
}

TEST_F(Bf16Gemm, RotationBitsShiftTheProduct) {
  Operand a = make_bf16(Numbers::normal, false, 17, 64, 1);
  Operand b = make_bf16(Numbers::normal, true, 35, 64, 2);
  a.rotation_bits = b.rotation_bits = 7;
  expect_contract(a, b, "rotated");
}

TEST_F(Bf16Gemm, TheNumberOfThreadsChangesNoBit) {
  for (const bool transposed : {false, true}) {
    Operand a = make_bf16(Numbers::normal, transposed, 333, 291, 1);
    Operand b = make_bf16(Numbers::normal, transposed, 217, 291, 2);
    for (const auto& [name, kernels] : bf16_kernels()) {
      const std::vector<float> empty(static_cast<size_t>(a.rows * b.rows));
      set_compute_threads(1);
      const std::vector<float> expected = multiply(*kernels, a, b, empty);
      for (const int threads : {2, 3, 8}) {
        set_compute_threads(threads);
        EXPECT_EQ(first_difference(multiply(*kernels, a, b, empty), expected), -1) << threads << " threads, " << name;
      }
    }
  }
  set_compute_threads(1);
}

TEST_F(Bf16Gemm, WrongOperandsAreDefects) {
  const auto expect_defect = [](const auto& change) {
    Operand a = make_bf16(Numbers::normal, false, 4, 8, 1);
    Operand b = make_bf16(Numbers::normal, false, 6, 8, 2);
    std::vector<float> output(24);
    GemmProblem problem{a.view(), b.view(), Tensor(output.data(), DType::f32, {4, 6})};
    cpu::bf16_gemm_with(cpu::bf16_portable, problem);
    change(problem);
    EXPECT_THROW(cpu::bf16_gemm_with(cpu::bf16_portable, problem), Error);
  };
  expect_defect([](GemmProblem& problem) { problem.a.rotation_bits = 7; });
  expect_defect([](GemmProblem& problem) { problem.a.transposed = true; });
  expect_defect([](GemmProblem& problem) { problem.b.inner = 6; });
  expect_defect([](GemmProblem& problem) { problem.b.format = Format::f32; });
  expect_defect([](GemmProblem& problem) { problem.output = Tensor(problem.output.data(), DType::f32, {6, 4}); });
  expect_defect([](GemmProblem& problem) { problem.output = Tensor(problem.output.data(), DType::u8, {4, 6}); });
  expect_defect([](GemmProblem& problem) {
    problem.output = Tensor(problem.output.data(), DType::bf16, {4, 6});
    problem.accumulate = true;
  });
}

}  // namespace
}  // namespace nibble
