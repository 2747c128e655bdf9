// Compares with published answers: digests over codes, scales and swizzled scales; the worked block; the scales of
// single blocks.
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "quant/format/hadamard.h"
#include "quant/format/swizzle.h"
#include "tests/quant/operand_fixture.h"
#include "tests/quant/reference_quantize.h"
#include "tests/quant/sha256.h"

namespace nibble::test {
namespace {

enum class Case { rows, columns, columns_rotated, columns_rotated_unsigned, rows_square, columns_square };

struct Golden {
  int64_t rows, cols;
  Case which;
  uint32_t amax, encode;
  const char *codes, *scales, *swizzled;
};

const Golden goldens[] = {
    {16, 16, Case::rows, 0x421c0000, 0x4289d89e, "493347b1bda8a447", "0d0057f3f5eba0a1", "612b82914ea9030a"},
    {16, 16, Case::columns_rotated, 0x420a0000, 0x429bd37a, "bcbebde5a0d555da", "9fecf9449eb82aa1", "676250b5bbc18d8b"},
    {16, 16, Case::rows_square, 0x421c0000, 0x4289d89e, "4c904816a82b835f", "7020373caed49533", "3b41e9a71fce5cd4"},
    {128, 128, Case::rows, 0x42440000, 0x425b6db7, "66e0c01fdd1c0418", "cdb00ed10d3bf925", "c67346bdb4bf4083"},
    {128, 128, Case::columns, 0x42440000, 0x425b6db7, "fc31e2712ea65f69", "7ed2a53c998c6aec", "f3eaaec31bd3e1f1"},
    {128, 128, Case::columns_rotated, 0x42440000, 0x425b6db7, "bb09ca7b135f2ae6", "d496c4d65b4f5603",
     "1c59f68853f482f8"},
    {128, 128, Case::columns_rotated_unsigned, 0x426f0000, 0x4233f325, "657a284fd7a877cb", "0b70b6529f41b9d6",
     "e90bdd95314b29f2"},
    {128, 128, Case::rows_square, 0x42440000, 0x425b6db7, "05e60f69df5c29ed", "5945ef172caf367f", "5691a2e8940d3c29"},
    {128, 128, Case::columns_square, 0x42440000, 0x425b6db7, "4c8947a630bceaca", "652103de66eb5af5",
     "74c62e00b4a7c77d"},
    {256, 272, Case::rows, 0x42710000, 0x423274d9, "7c8eab7045e13c64", "1a9050bac2a0b6bf", "e431501b440faa5d"},
    {256, 272, Case::columns, 0x42710000, 0x423274d9, "5593bba1b5c0ab78", "d1ac7132cfd6b149", "fc363e77129d0385"},
    {256, 272, Case::columns_rotated, 0x428b0000, 0x421ab47d, "241980dc792f10aa", "56c833c0da6ffab4",
     "9b46975c437e9a2e"},
    {256, 272, Case::rows_square, 0x42710000, 0x423274d9, "991cf6dc5ab5fbdb", "373a75a972008e1d", "929f4f43c6067fc0"},
    {256, 272, Case::columns_square, 0x42710000, 0x423274d9, "aa4bc2d28d294a1f", "398571c74c4201b6",
     "763335c401491528"},
    {256, 1024, Case::rows, 0x42650000, 0x423bced0, "93d72bd262f5c93e", "98e459566f96e361", "bcb32b1a26d53706"},
    {256, 1024, Case::columns_rotated, 0x42980000, 0x420d7943, "c37a9f9cb103ac6f", "c77aeaec95c261aa",
     "101525ffa369c57a"},
    {256, 1024, Case::rows_square, 0x42650000, 0x423bced0, "a793d3c15cbae93b", "bc0839af98c42ee0", "0f79ccc84cc2c12e"},
};

OperandSpec spec_of(Case which) {
  const bool square = which == Case::rows_square || which == Case::columns_square;
  return nvfp4(square ? BlockShape::square : BlockShape::row, Rounding::nearest,
               which == Case::columns_rotated ? 16 : 0);
}

bool is_transposed(Case which) {
  return which != Case::rows && which != Case::rows_square;
}

std::vector<uint8_t> swizzled(const std::vector<uint8_t>& scales, int64_t rows, int64_t blocks) {
  std::vector<uint8_t> result(static_cast<size_t>(swizzled_scale_bytes(rows, blocks)), 0);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t block = 0; block < blocks; ++block) {
      result[static_cast<size_t>(swizzled_scale_offset(row, block, blocks))] =
          scales[static_cast<size_t>(row * blocks + block)];
    }
  }
  return result;
}

Operand quantized_golden(const Golden& golden, const Matrix& input, bool from_f32) {
  if (golden.which == Case::columns_rotated_unsigned) {
    Matrix rotated = input.transposed();
    for (size_t at = 0; at < rotated.values.size(); at += 16)
      rotate_points(rotated.values.data() + at, hadamard_points, PhiloxBlock{});
    const Matrix rounded = Matrix(rotated.rows, rotated.cols, rotated.values).rounded();
    return quantized({from_f32 ? rounded.f32() : rounded.bf16(), false, nvfp4(), {}});
  }
  return quantized({from_f32 ? input.f32() : input.bf16(), is_transposed(golden.which), spec_of(golden.which), {}});
}

TEST(Golden, Sha256KnownAnswers) {
  EXPECT_EQ(sha256_prefix("", 0), "e3b0c44298fc1c14");
  EXPECT_EQ(sha256_prefix("abc", 3), "ba7816bf8f01cfea");
}

TEST(Golden, InputIsTheOneOfTheTable) {
  EXPECT_EQ(sha256_prefix(golden_input(16, 16).values), "d5f8ecd1e3338f2e");
  EXPECT_EQ(sha256_prefix(golden_input(128, 128).values), "9197b2785586261e");
  EXPECT_EQ(sha256_prefix(golden_input(256, 272).values), "da6ce744ae5a0eb6");
  EXPECT_EQ(sha256_prefix(golden_input(256, 1024).values), "071a3e8ba3458352");
}

TEST(Golden, CodesScalesAndSwizzledScales) {
  for (const Golden& golden : goldens) {
    const Matrix input = golden_input(golden.rows, golden.cols);
    for (const bool from_f32 : {false, true}) {
      SCOPED_TRACE(testing::Message() << golden.rows << "x" << golden.cols << " case " << static_cast<int>(golden.which)
                                      << (from_f32 ? " f32" : " bf16"));
      const Operand operand = quantized_golden(golden, input, from_f32);
      EXPECT_EQ(bits_of(operand.amax()), golden.amax);
      EXPECT_EQ(bits_of(tensor_scale_of(operand.amax(), 2688.0f).encode), golden.encode);
      EXPECT_EQ(operand.decode_scale(), 1.0f / float_of_bits(golden.encode));
      EXPECT_EQ(sha256_prefix(operand.codes()), golden.codes);
      EXPECT_EQ(sha256_prefix(operand.scales()), golden.scales);
      const auto laid_out = swizzled(operand.scales(), operand.tensor.rows, operand.tensor.inner / 16);
      EXPECT_EQ(sha256_prefix(laid_out), golden.swizzled);
    }
  }
}

std::string hex(const std::vector<uint8_t>& bytes) {
  std::string text;
  for (const uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

TEST(Golden, WorkedBlock) {
  std::vector<float> row = {.1f, -.2f, .3f, .4f, -.5f, .6f, .75f, 1, -1.25f, 1.5f, -2, 2.5f, 3, -3.5f, 4, 5, 10};
  row.resize(32);
  const Matrix matrix = Matrix(1, 32, row).rounded();

  const Operand plain = quantized({matrix.bf16(), false, nvfp4(), {}});
  EXPECT_EQ(plain.amax(), 10.0f);
  EXPECT_EQ(bits_of(tensor_scale_of(10.0f, 2688.0f).encode), 0x43866666u);
  EXPECT_EQ(hex(plain.scales()), "767e");
  EXPECT_EQ(hex(plain.codes()), "801119224b5ce6760700000000000000");

  const Operand rotated = quantized({matrix.bf16(), false, nvfp4(BlockShape::row, Rounding::nearest, 16), {}});
  EXPECT_EQ(rotated.amax(), 5.59375f);
  EXPECT_EQ(hex(rotated.scales()), "7e75");
  EXPECT_EQ(hex(rotated.codes()), "3e19172c94a28ea47777777777777777");
}

struct ScaleAnswer {
  uint32_t amax, block_amax, encode;
  int byte;
  uint32_t element_encode;
  int by_true_division, divided_first, exact;  // the scales that other orders of the operations give
};
const ScaleAnswer scale_answers[] = {
    {0x3c920000, 0x3b5b0000, 0x481349a5, 0x6b, 0x44d63c93, 0x6a, 0x6a, 0x6a},
    {0x419e0000, 0x40ed0000, 0x430819ed, 0x73, 0x3f45f72a, 0x73, 0x73, 0x72},
    {0x35c40000, 0x344b0000, 0x4edb6db7, 0x67, 0x4bea0ea1, 0x67, 0x66, 0x66},
    {0x409c0000, 0x406a0000, 0x4409d89e, 0x7b, 0x3fc880e5, 0x7a, 0x7b, 0x7a},
};

Matrix two_blocks(float amax, float block_amax) {
  std::vector<float> values(32, 0);
  values[0] = amax;
  values[16] = block_amax;
  return Matrix(1, 32, values);
}

TEST(Golden, ScalesOfSingleBlocks) {
  for (const ScaleAnswer& answer : scale_answers) {
    const Matrix matrix = two_blocks(float_of_bits(answer.amax), float_of_bits(answer.block_amax));
    const Operand operand = quantized({matrix.f32(), false, nvfp4(), {}});
    const TensorScale scale = tensor_scale_of(operand.amax(), 2688.0f);
    EXPECT_EQ(bits_of(scale.encode), answer.encode);
    EXPECT_EQ(operand.scales()[1], answer.byte);
    EXPECT_EQ(bits_of(element_encode_scale(operand.scales()[1], scale.decode)), answer.element_encode);
  }
}

TEST(Golden, OtherOrdersOfTheScaleFormulaGiveOtherBytes) {
  for (const ScaleAnswer& answer : scale_answers) {
    const Matrix matrix = two_blocks(float_of_bits(answer.amax), float_of_bits(answer.block_amax));
    const auto byte_with = [&](bool Mistakes::*mistake) {
      ReferenceProblem problem{matrix.values, 1, 32, nvfp4(), {}, {}};
      problem.mistakes.*mistake = true;
      return int{reference_quantize(problem).scales[1]};
    };
    EXPECT_EQ(byte_with(&Mistakes::divide_scale_by_six), answer.by_true_division);
    EXPECT_EQ(byte_with(&Mistakes::divide_block_amax_first), answer.divided_first);
    EXPECT_EQ(byte_with(&Mistakes::double_precision), answer.exact);
  }
  EXPECT_NE(scale_answers[0].byte, scale_answers[0].by_true_division);
}

// Returns whether the obvious quantiser with this mistake misses a digest.
bool noticed_by_goldens(bool Mistakes::*mistake, bool rotated_only) {
  for (const Golden& golden : goldens) {
    if (golden.rows * golden.cols > 256 * 272 || golden.which == Case::columns_rotated_unsigned) continue;
    if (rotated_only && golden.which != Case::columns_rotated) continue;
    if (mistake == &Mistakes::rotate_before_transpose && golden.rows != golden.cols) continue;
    const Matrix input = golden_input(golden.rows, golden.cols);
    const Matrix operand = is_transposed(golden.which) ? input.transposed() : input;
    ReferenceProblem problem{operand.values, operand.rows, operand.cols, spec_of(golden.which), {}, {}};
    if (mistake != nullptr) problem.mistakes.*mistake = true;
    const ReferenceResult result = reference_quantize(problem);
    if (sha256_prefix(result.codes) != golden.codes || sha256_prefix(result.scales) != golden.scales) return true;
  }
  return false;
}

// The golden inputs are worth something only if wrong quantisers give other digests on them. A twelfth mistake, S_enc /
// 6 by true division, shows in the scales of single blocks above.
TEST(Golden, InputsNoticeEveryMistake) {
  struct Row {
    const char* name;
    bool Mistakes::*mistake;
    bool rotated;
  };
  const Row mistakes[] = {
      {"nibbles swapped", &Mistakes::swap_nibbles, false},
      {"sign of zero dropped", &Mistakes::drop_sign_of_zero, false},
      {"sign mask reversed", &Mistakes::reverse_sign_mask, true},
      {"rotation along the other axis", &Mistakes::rotate_before_transpose, true},
      {"amax before the rotation", &Mistakes::amax_before_rotation, true},
      {"no BF16 rounding after the rotation", &Mistakes::keep_rotation_in_fp32, true},
      {"S_enc / scale", &Mistakes::encode_by_quotient, false},
      {"double precision", &Mistakes::double_precision, false},
      {"E4M3 ties away", &Mistakes::e4m3_ties_away, false},
      {"E2M1 ties away", &Mistakes::e2m1_ties_away, false},
      {"(block amax / 6) * S_enc", &Mistakes::divide_block_amax_first, false},
  };
  EXPECT_FALSE(noticed_by_goldens(nullptr, false));
  for (const Row& row : mistakes) EXPECT_TRUE(noticed_by_goldens(row.mistake, row.rotated)) << row.name;
}

}  // namespace
}  // namespace nibble::test
