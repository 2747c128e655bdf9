// Compares GEMMs on every instruction-set level of this machine with the contract's scalar loops.
#pragma once

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "quant/gemm_reference.h"

namespace nibble {

constexpr Layout tiles{Format::nvfp4, false, false, true};

inline std::vector<float> product(InstructionSet level, Operand& a, Operand& b) {
  constexpr size_t guard = 1024;  // elements behind the output that stay as they are
  constexpr float untouched = 12345.0F;
  const auto count = static_cast<size_t>(a.rows * b.rows);
  std::vector<float> output(count, std::numeric_limits<float>::quiet_NaN());
  output.resize(count + guard, untouched);
  cpu::gemm_with(level, {a.view(), b.view(), Tensor(output.data(), DType::f32, {a.rows, b.rows})});
  for (size_t i = 0; i < guard; ++i) EXPECT_EQ(output[count + i], untouched) << name_of(level) << ", element " << i;
  output.resize(count);
  return output;
}

// Compares f32, accumulated f32 and bf16 output with the reference, on every level.
inline void expect_contract(Operand& a, Operand& b, const std::string& what) {
  const std::vector<float> expected = reference_gemm(a, b);
  std::vector<float> base(expected.size());
  for (size_t i = 0; i < base.size(); ++i) base[i] = static_cast<float>(i % 17) * 0.37F - 3.0F;
  std::vector<float> expected_sum(base);
  std::vector<BFloat16> expected_bf16;
  expected_bf16.reserve(expected.size());
  for (size_t i = 0; i < base.size(); ++i) expected_sum[i] += expected[i];
  for (float value : expected) expected_bf16.push_back(bf16_nearest(value));
  for (const InstructionSet level : levels()) {
    const std::string where = what + " on " + std::string(name_of(level));
    EXPECT_EQ(first_difference(product(level, a, b), expected), -1) << where;
    std::vector<float> sum(base);
    cpu::gemm_with(level, {a.view(), b.view(), Tensor(sum.data(), DType::f32, {a.rows, b.rows}), true});
    EXPECT_EQ(first_difference(sum, expected_sum), -1) << where << ", accumulated";
    std::vector<BFloat16> bf16(expected.size());
    cpu::gemm_with(level, {a.view(), b.view(), Tensor(bf16.data(), DType::bf16, {a.rows, b.rows})});
    EXPECT_EQ(first_difference(bf16, expected_bf16), -1) << where << ", bf16";
  }
}

inline std::string describe(const Layout& layout) {
  return std::string(name_of(layout.format)) + (layout.outer ? " outer" : "") + (layout.transposed ? "^T" : "") +
         (layout.tiles ? " tiles" : "");
}

inline void expect_contract(const Layout& left, const Layout& right, int64_t m, int64_t n, int64_t k) {
  Operand a = make_operand(left, m, k, 1);
  Operand b = make_operand(right, n, k, 2);
  expect_contract(a, b,
                  describe(left) + " x " + describe(right) + " m=" + std::to_string(m) + " n=" + std::to_string(n) +
                      " k=" + std::to_string(k));
}

}  // namespace nibble
