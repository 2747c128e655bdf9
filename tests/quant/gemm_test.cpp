// Products against scalar loops that spell out the contract of quant/gemm.h, bit for bit, on every instruction-set
// level of this machine; and against float64.
#include "quant/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "dist/error.h"
#include "dist/thread_pool.h"
#include "quant/codec.h"
#include "quant/gemm_kernels.h"

namespace nibble {
namespace {

std::vector<const cpu::GemmKernels*> levels() {
  std::vector<const cpu::GemmKernels*> all;
  for (const cpu::GemmKernels* const* next = cpu::available_gemm_kernels(); *next != nullptr; ++next)
    all.push_back(*next);
  return all;
}

// An operand with its memory. `values` are what the product sees, tensor scale excluded.
struct Operand {
  Format format;
  int64_t rows, inner;
  bool transposed;
  std::vector<float> f32;
  std::vector<BFloat16> bf16;
  std::vector<uint8_t> codes, scales;
  std::vector<float> tensor_scale = {1.0F, 1.0F};

  size_t index(int64_t row, int64_t k) const {
    return static_cast<size_t>(transposed ? k * rows + row : row * inner + k);
  }
  uint32_t code(int64_t row, int64_t k) const {
    return (codes[static_cast<size_t>(row * inner + k) / 2] >> (4 * (k % 2))) & 0xFU;
  }
  float block_scale(int64_t row, int64_t block) const {
    return e4m3_to_float(scales[static_cast<size_t>(row * (inner / 16) + block)]);
  }
  float value(int64_t row, int64_t k) const {
    if (format == Format::f32) return f32[index(row, k)];
    if (format == Format::bf16) return to_float(bf16[index(row, k)]);
    return e2m1_to_float(code(row, k)) * block_scale(row, k / 16);
  }
  QuantizedTensor view() {
    QuantizedTensor tensor;
    tensor.format = format;
    tensor.rows = rows;
    tensor.inner = inner;
    tensor.transposed = transposed;
    const int64_t first = transposed ? inner : rows;
    const int64_t second = transposed ? rows : inner;
    if (format == Format::f32) tensor.values = Tensor(f32.data(), DType::f32, {first, second});
    if (format == Format::bf16) tensor.values = Tensor(bf16.data(), DType::bf16, {first, second});
    if (format == Format::nvfp4) {
      tensor.values = Tensor(codes.data(), DType::u8, {rows, inner / 2});
      tensor.block_scales = Tensor(scales.data(), DType::u8, {rows, inner / 16});
      tensor.tensor_scale = Tensor(tensor_scale.data(), DType::f32, {2});
    }
    return tensor;
  }
};

Operand make_operand(Format format, int64_t rows, int64_t inner, bool transposed, uint32_t seed) {
  Operand operand{format, rows, inner, transposed, {}, {}, {}, {}};
  std::mt19937 generator(seed);
  const auto count = static_cast<size_t>(rows * inner);
  std::normal_distribution<float> normal;
  if (format == Format::nvfp4) {
    for (size_t i = 0; i < count / 2; ++i) operand.codes.push_back(static_cast<uint8_t>(generator()));
    // All finite scales: zero, subnormal and normal.
    for (size_t i = 0; i < count / 16; ++i) operand.scales.push_back(static_cast<uint8_t>(generator() % 0x7F));
    operand.tensor_scale[0] = 0.01F * std::exp(normal(generator));
  }
  for (size_t i = 0; i < count && format == Format::f32; ++i) operand.f32.push_back(normal(generator));
  for (size_t i = 0; i < count && format == Format::bf16; ++i) operand.bf16.push_back(bf16_nearest(normal(generator)));
  return operand;
}

// The contract, in order. [m, n]
std::vector<float> reference_product(const Operand& a, const Operand& b) {
  std::vector<float> result;
  const bool pair = a.format == Format::nvfp4 && b.format == Format::nvfp4;
  const float g_a = a.format == Format::nvfp4 ? a.tensor_scale[0] : 1.0F;
  const float g_b = b.format == Format::nvfp4 ? b.tensor_scale[0] : 1.0F;
  const float alpha = pair ? (g_a * g_b) / 4.0F : g_a * g_b;
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < b.rows; ++j) {
      float c = 0.0F;
      for (int64_t k = 0; k < a.inner && !pair; ++k) c = std::fma(a.value(i, k), b.value(j, k), c);
      for (int64_t block = 0; block < a.inner / 16 && pair; ++block) {
        int32_t dot = 0;
        for (int64_t k = block * 16; k < block * 16 + 16; ++k)
          dot += e2m1_doubled(a.code(i, k)) * e2m1_doubled(b.code(j, k));
        c = std::fma(static_cast<float>(dot), a.block_scale(i, block) * b.block_scale(j, block), c);
      }
      result.push_back(c * alpha);
    }
  }
  return result;
}

// Index of the first element with other bits, or -1. A NaN equals any NaN.
template <class T>
int64_t first_difference(const std::vector<T>& got, const std::vector<T>& expected) {
  if (got.size() != expected.size()) return 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::memcmp(&got[i], &expected[i], sizeof(T)) != 0 &&
        !(is_nan(to_float(got[i])) && is_nan(to_float(expected[i])))) {
      return static_cast<int64_t>(i);
    }
  }
  return -1;
}

std::vector<float> product(const cpu::GemmKernels& kernels, Operand& a, Operand& b) {
  std::vector<float> output(static_cast<size_t>(a.rows * b.rows), std::numeric_limits<float>::quiet_NaN());
  cpu::gemm_with(kernels, {a.view(), b.view(), Tensor(output.data(), DType::f32, {a.rows, b.rows})});
  return output;
}

// f32, accumulated f32 and bf16 output against the reference, on every level.
void expect_contract(Operand& a, Operand& b, const std::string& what) {
  const std::vector<float> expected = reference_product(a, b);
  std::vector<float> base(expected.size());
  for (size_t i = 0; i < base.size(); ++i) base[i] = static_cast<float>(i % 17) * 0.37F - 3.0F;
  std::vector<float> expected_sum(base);
  std::vector<BFloat16> expected_bf16;
  for (size_t i = 0; i < base.size(); ++i) expected_sum[i] += expected[i];
  for (float value : expected) expected_bf16.push_back(bf16_nearest(value));
  for (const cpu::GemmKernels* kernels : levels()) {
    const std::string where = what + " on " + kernels->name;
    EXPECT_EQ(first_difference(product(*kernels, a, b), expected), -1) << where;
    std::vector<float> sum(base);
    cpu::gemm_with(*kernels, {a.view(), b.view(), Tensor(sum.data(), DType::f32, {a.rows, b.rows}), true});
    EXPECT_EQ(first_difference(sum, expected_sum), -1) << where << ", accumulated";
    std::vector<BFloat16> bf16(expected.size());
    cpu::gemm_with(*kernels, {a.view(), b.view(), Tensor(bf16.data(), DType::bf16, {a.rows, b.rows})});
    EXPECT_EQ(first_difference(bf16, expected_bf16), -1) << where << ", bf16";
  }
}

std::string describe(Format a, bool a_transposed, Format b, bool b_transposed, int64_t m, int64_t n, int64_t k) {
  const auto name = [](Format format) {
    return format == Format::f32 ? "f32" : format == Format::bf16 ? "bf16" : "nvfp4";
  };
  return std::string(name(a)) + (a_transposed ? "^T" : "") + " x " + name(b) + (b_transposed ? "^T" : "") +
         " m=" + std::to_string(m) + " n=" + std::to_string(n) + " k=" + std::to_string(k);
}

struct Layout {
  Format format;
  bool transposed;
};
constexpr Layout layouts[] = {
    {Format::f32, false}, {Format::f32, true}, {Format::bf16, false}, {Format::bf16, true}, {Format::nvfp4, false}};

void expect_contract(Layout left, Layout right, int64_t m, int64_t n, int64_t k) {
  Operand a = make_operand(left.format, m, k, left.transposed, 1);
  Operand b = make_operand(right.format, n, k, right.transposed, 2);
  expect_contract(a, b, describe(left.format, left.transposed, right.format, right.transposed, m, n, k));
}

class GemmShapes : public testing::Test {
 protected:
  void SetUp() override { set_compute_threads(1); }
};

TEST_F(GemmShapes, EveryPairOfFormatsEqualsTheScalarLoopsBitForBit) {
  for (const Layout& left : layouts) {
    for (const Layout& right : layouts) {
      for (int64_t m : {1, 7, 33}) {
        for (int64_t n : {1, 7, 33}) {
          for (int64_t k : {16, 48, 272}) expect_contract(left, right, m, n, k);
        }
      }
      expect_contract(left, right, 100, 100, 272);
      expect_contract(left, right, 14, 32, 64);
    }
  }
}

TEST_F(GemmShapes, OddInnerExtentsOfPlainFormats) {
  for (const Layout& left : layouts) {
    for (const Layout& right : layouts) {
      if (left.format == Format::nvfp4 || right.format == Format::nvfp4) continue;
      for (int64_t k : {1, 5, 15, 17, 255, 257}) expect_contract(left, right, 19, 37, k);
    }
  }
}

TEST_F(GemmShapes, MoreThanOneBlockAndOnePassOverTheInnerAxis) {
  expect_contract({Format::nvfp4, false}, {Format::nvfp4, false}, 461, 269, 528);
  expect_contract({Format::bf16, false}, {Format::bf16, true}, 461, 269, 131);
  expect_contract({Format::nvfp4, false}, {Format::nvfp4, false}, 9, 40, 1600);
  expect_contract({Format::nvfp4, false}, {Format::bf16, true}, 9, 40, 528);
}

TEST_F(GemmShapes, AnEmptyInnerAxisGivesZero) {
  for (const Layout& layout : layouts) expect_contract(layout, layout, 5, 3, 0);
}

TEST_F(GemmShapes, NoRowsIsNoWork) {
  for (const cpu::GemmKernels* kernels : levels()) {
    Operand a = make_operand(Format::bf16, 0, 16, false, 1);
    Operand b = make_operand(Format::bf16, 3, 16, false, 2);
    EXPECT_TRUE(product(*kernels, a, b).empty());
  }
}

TEST(GemmThreads, TheNumberOfThreadsChangesNoBit) {
  for (const Layout& layout : {layouts[2], layouts[4]}) {
    Operand a = make_operand(layout.format, 333, 272, false, 1);
    Operand b = make_operand(layout.format, 217, 272, false, 2);
    for (const cpu::GemmKernels* kernels : levels()) {
      set_compute_threads(1);
      const std::vector<float> expected = product(*kernels, a, b);
      for (int threads : {2, 4}) {
        set_compute_threads(threads);
        EXPECT_EQ(first_difference(product(*kernels, a, b), expected), -1) << threads << " threads, " << kernels->name;
      }
    }
  }
  set_compute_threads(1);
}

// A block's sum is exact at the extremes of the integer range (2304 = 16 * 12 * 12), where 16-bit steps could wrap.
TEST_F(GemmShapes, LargestCodesAndScales) {
  for (int left : {0x77, 0xFF, 0x7F}) {
    for (int right : {0x77, 0xFF, 0xF7}) {
      Operand a = make_operand(Format::nvfp4, 33, 64, false, 1);
      Operand b = make_operand(Format::nvfp4, 35, 64, false, 2);
      std::fill(a.codes.begin(), a.codes.end(), static_cast<uint8_t>(left));
      std::fill(b.codes.begin(), b.codes.end(), static_cast<uint8_t>(right));
      std::fill(a.scales.begin(), a.scales.end(), 0x7E);
      std::fill(b.scales.begin(), b.scales.end(), 0x7E);
      a.tensor_scale[0] = b.tensor_scale[0] = 1.0F;
      expect_contract(a, b, "extremes");
      if (left == right) {
        EXPECT_EQ(product(*levels()[0], a, b)[0], 64.0F * 6 * 6 * 448 * 448);
      }
    }
  }
}

// All 256 pairs of codes, each alone in its block.
TEST_F(GemmShapes, EveryPairOfCodes) {
  Operand a = make_operand(Format::nvfp4, 16, 16, false, 1);
  Operand b = make_operand(Format::nvfp4, 16, 16, false, 2);
  std::fill(a.codes.begin(), a.codes.end(), 0);
  std::fill(b.codes.begin(), b.codes.end(), 0);
  std::fill(a.scales.begin(), a.scales.end(), 0x38);  // 1
  std::fill(b.scales.begin(), b.scales.end(), 0x38);
  a.tensor_scale[0] = b.tensor_scale[0] = 1.0F;
  for (size_t row = 0; row < 16; ++row) {
    a.codes[row * 8 + 5] = static_cast<uint8_t>(row << 4);
    b.codes[row * 8 + 5] = static_cast<uint8_t>(row << 4);
  }
  for (const cpu::GemmKernels* kernels : levels()) {
    const std::vector<float> got = product(*kernels, a, b);
    for (uint32_t i = 0; i < 16; ++i) {
      for (uint32_t j = 0; j < 16; ++j)
        EXPECT_EQ(got[i * 16 + j], e2m1_to_float(i) * e2m1_to_float(j)) << kernels->name;
    }
  }
}

TEST_F(GemmShapes, ZeroSubnormalAndNanScales) {
  Operand a = make_operand(Format::nvfp4, 40, 96, false, 1);
  Operand b = make_operand(Format::nvfp4, 40, 96, false, 2);
  for (size_t i = 0; i < a.scales.size(); ++i) a.scales[i] = static_cast<uint8_t>(i % 8);
  for (size_t i = 0; i < b.scales.size(); ++i) b.scales[i] = static_cast<uint8_t>(i % 9);
  expect_contract(a, b, "subnormal scales");
  std::fill(a.scales.begin(), a.scales.end(), 0);
  expect_contract(a, b, "zero scales");
  a.scales[7] = 0x7F;
  expect_contract(a, b, "a NaN scale");
  EXPECT_TRUE(std::isnan(product(*levels()[0], a, b)[40]));
}

// The tensor scales' product under- or overflows FP32; what it multiplies brings the result back.
TEST_F(GemmShapes, ExtremeTensorScalesAreRoundedOnce) {
  struct Case {
    float g_a, g_b;
  };
  for (const Case& scales : {Case{3.3e-23F, 7.7e-22F}, Case{1e-20F, 3e-19F}, Case{1.1e-30F, 1e-30F}, Case{1e25F, 3e14F},
                             Case{0x1p-149F, 0x1p-3F}, Case{0.0F, 1.0F}, Case{1e-45F, 0.0F}}) {
    Operand a = make_operand(Format::nvfp4, 20, 48, false, 1);
    Operand b = make_operand(Format::nvfp4, 20, 48, false, 2);
    a.tensor_scale[0] = b.tensor_scale[0] = 1.0F;
    std::vector<float> unscaled = reference_product(a, b);  // c / 4
    a.tensor_scale[0] = scales.g_a;
    b.tensor_scale[0] = scales.g_b;
    int exponent = 0;
    const double exact = static_cast<double>(scales.g_a) * static_cast<double>(scales.g_b);
    const auto fraction = static_cast<float>(std::frexp(exact, &exponent));
    const double alpha = std::ldexp(static_cast<double>(fraction), exponent);
    for (float& value : unscaled) value = static_cast<float>(static_cast<double>(value) * alpha);
    for (const cpu::GemmKernels* kernels : levels()) {
      EXPECT_EQ(first_difference(product(*kernels, a, b), unscaled), -1) << scales.g_a << " * " << scales.g_b;
    }
    for (size_t i = 0; i < unscaled.size() && exact > 0 && exact < 1e-36 && exact > 1e-45; ++i) {
      EXPECT_NE(unscaled[i], 0.0F);
    }
  }
}

TEST_F(GemmShapes, InfinitiesAndNanArrive) {
  Operand a = make_operand(Format::bf16, 20, 32, false, 1);
  Operand b = make_operand(Format::bf16, 20, 32, false, 2);
  a.bf16[3] = bf16_nearest(std::numeric_limits<float>::infinity());
  a.bf16[5 * 32] = bf16_nearest(std::numeric_limits<float>::quiet_NaN());
  expect_contract(a, b, "non-finite values");
  const std::vector<float> got = product(*levels()[0], a, b);
  EXPECT_TRUE(std::isinf(got[0]));
  EXPECT_TRUE(std::isnan(got[5 * 20]));
}

// Relative Frobenius distance to float64. Each of the K/16 roundings is at most 2^-24 of the running sum, the scales'
// and alpha's two more; the bound 1e-6 holds with room for these sizes, but not for a product that loses a block.
TEST_F(GemmShapes, CloseToFloat64) {
  Operand a = make_operand(Format::nvfp4, 64, 2048, false, 1);
  Operand b = make_operand(Format::nvfp4, 64, 2048, false, 2);
  std::vector<double> exact;
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < b.rows; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < a.inner; ++k)
        sum += static_cast<double>(a.value(i, k)) * static_cast<double>(b.value(j, k));
      exact.push_back(sum * static_cast<double>(a.tensor_scale[0]) * static_cast<double>(b.tensor_scale[0]));
    }
  }
  for (const cpu::GemmKernels* kernels : levels()) {
    const std::vector<float> got = product(*kernels, a, b);
    double error = 0;
    double norm = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      error += (static_cast<double>(got[i]) - exact[i]) * (static_cast<double>(got[i]) - exact[i]);
      norm += exact[i] * exact[i];
    }
    EXPECT_LE(std::sqrt(error), 1e-6 * std::sqrt(norm)) << kernels->name;
    EXPECT_GT(norm, 0.0);
  }
}

struct Strides {
  int64_t a_row, a_col, b_row, b_col;
};

void expect_small_contract(int64_t m, int64_t n, int64_t k, const Strides& strides, bool accumulate) {
  std::mt19937 generator(7);
  std::normal_distribution<float> normal;
  const int64_t c_stride = n + 3;
  std::vector<float> a(static_cast<size_t>(m * strides.a_row + k * strides.a_col) + 1);
  std::vector<float> b(static_cast<size_t>(k * strides.b_row + n * strides.b_col) + 1);
  std::vector<float> c(static_cast<size_t>(m * c_stride));
  for (auto* values : {&a, &b, &c}) {
    for (float& value : *values) value = normal(generator);
  }
  std::vector<float> expected(c);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float& sum = expected[static_cast<size_t>(i * c_stride + j)];
      if (!accumulate) sum = 0.0F;
      for (int64_t l = 0; l < k; ++l) {
        sum = std::fma(a[static_cast<size_t>(i * strides.a_row + l * strides.a_col)],
                       b[static_cast<size_t>(l * strides.b_row + j * strides.b_col)], sum);
      }
    }
  }
  for (const cpu::GemmKernels* kernels : levels()) {
    std::vector<float> got(c);
    cpu::small_matmul_with(*kernels, {a.data(), strides.a_row, strides.a_col, b.data(), strides.b_row, strides.b_col,
                                      got.data(), c_stride, m, n, k, accumulate});
    EXPECT_EQ(first_difference(got, expected), -1)
        << kernels->name << " m=" << m << " n=" << n << " k=" << k << " accumulate=" << accumulate;
  }
}

TEST(SmallMatmul, EveryStridePatternEqualsTheScalarLoopBitForBit) {
  for (int64_t m : {1, 14, 65}) {
    for (int64_t n : {1, 32, 65}) {
      for (int64_t k : {0, 1, 33, 64, 300}) {
        const Strides patterns[] = {{k + 2, 1, n + 1, 1},
                                    {k + 2, 1, 1, k + 5},
                                    {1, m + 4, n + 1, 1},
                                    {1, m + 4, 1, k + 5},
                                    {2 * k + 3, 2, 2 * n + 3, 2}};
        for (const Strides& strides : patterns) {
          for (bool accumulate : {false, true}) expect_small_contract(m, n, k, strides, accumulate);
        }
      }
    }
  }
}

// One fused multiply-add on arbitrary bit patterns: subnormal results, cancellation, ties, overflow.
TEST(SmallMatmul, OneStepIsACorrectlyRoundedMultiplyAdd) {
  constexpr int64_t size = 300;
  std::mt19937 generator(11);
  for (int round = 0; round < 12; ++round) {
    std::vector<float> a(size);
    std::vector<float> b(size);
    std::vector<float> c(size * size);
    for (float& value : a) value = float_of_bits(static_cast<uint32_t>(generator()));
    for (float& value : b) value = float_of_bits(static_cast<uint32_t>(generator()));
    for (int64_t i = 0; i < size * size; ++i) {
      // Addends near the product's size, near its rounding boundary, or arbitrary.
      const float exact = a[static_cast<size_t>(i / size)] * b[static_cast<size_t>(i % size)];
      const auto bits = static_cast<uint32_t>(generator());
      const float near = float_of_bits(bits_of(exact) + (bits % 5 - 2) * 0x800000U + (bits >> 30));
      c[static_cast<size_t>(i)] = i % 3 == 0 ? -near : i % 3 == 1 ? float_of_bits(bits) : near * 0x1p-24F;
    }
    std::vector<float> expected(c);
    for (int64_t i = 0; i < size * size; ++i) {
      float& sum = expected[static_cast<size_t>(i)];
      sum = std::fma(a[static_cast<size_t>(i / size)], b[static_cast<size_t>(i % size)], sum);
    }
    for (const cpu::GemmKernels* kernels : levels()) {
      std::vector<float> got(c);
      cpu::small_matmul_with(*kernels, {a.data(), 1, 1, b.data(), 1, 1, got.data(), size, size, size, 1, true});
      const int64_t index = first_difference(got, expected);
      EXPECT_EQ(index, -1) << kernels->name;
    }
  }
}

TEST(InstructionSet, NamesAndErrors) {
  for (const cpu::GemmKernels* kernels : levels()) {
    EXPECT_STREQ(cpu::select_gemm_kernels(kernels->level).level, kernels->level);
  }
  EXPECT_STREQ(levels().back()->name, "portable");
  EXPECT_EQ(&cpu::select_gemm_kernels(nullptr), levels().front());
  EXPECT_EQ(&cpu::select_gemm_kernels(""), levels().front());
  for (const char* wrong : {"avx", "AVX2", "avx512_vnni", "neon"}) {
    try {
      cpu::select_gemm_kernels(wrong);
      FAIL() << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      EXPECT_NE(std::string(error.what()).find(wrong), std::string::npos);
      for (const char* valid : {"portable", "avx2", "avx512"}) {
        EXPECT_NE(error.remedy().find(valid), std::string::npos);
      }
    }
  }
}

TEST(InstructionSet, TheEnvironmentForcesALevel) {
  ASSERT_EQ(setenv("NIBBLE_ISA", "portable", 1), 0);  // before the first use in this process
  EXPECT_STREQ(instruction_set(), "portable");
  Operand a = make_operand(Format::nvfp4, 5, 32, false, 1);
  Operand b = make_operand(Format::nvfp4, 6, 32, false, 2);
  std::vector<float> output(30);
  gemm({a.view(), b.view(), Tensor(output.data(), DType::f32, {5, 6})});
  EXPECT_EQ(first_difference(output, reference_product(a, b)), -1);
  ASSERT_EQ(unsetenv("NIBBLE_ISA"), 0);
}

}  // namespace
}  // namespace nibble
