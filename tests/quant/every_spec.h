// Every kind of operand, and inputs that exercise them.
#pragma once

#include <cmath>
#include <vector>

#include "dist/base/error.h"
#include "tests/quant/operand_fixture.h"

namespace nibble::test {

inline bool is_supported(const OperandSpec& spec) {
  try {
    check_supported(spec, "test");
    return true;
  } catch (const Error&) {
    return false;
  }
}

// Returns every combination of block, scale rule, rounding, correction and outer scale that a quantised format has.
inline std::vector<OperandSpec> every_rule() {
  std::vector<OperandSpec> specs;
  for (const Format format :
       {Format::nvfp4, Format::mxfp4, Format::mxfp8_e4m3, Format::mxfp8_e5m2, Format::fp8_e4m3, Format::fp8_e5m2}) {
    for (const BlockShape block : {BlockShape::row, BlockShape::square}) {
      for (int scale = 0; scale <= static_cast<int>(ScaleRule::rms); ++scale) {
        for (int round = 0; round <= static_cast<int>(Rounding::ms_eden); ++round) {
          for (int correction = 0; correction <= static_cast<int>(EdenCorrection::per_128_published); ++correction) {
            for (const OuterScale outer : {OuterScale::tensor, OuterScale::row_128}) {
              OperandSpec spec;
              spec.format = format;
              spec.block = block;
              spec.scale = static_cast<ScaleRule>(scale);
              spec.round = static_cast<Rounding>(round);
              spec.correction = static_cast<EdenCorrection>(correction);
              spec.outer = outer;
              if (is_supported(spec)) specs.push_back(spec);
            }
          }
        }
      }
    }
  }
  return specs;
}

// Returns the spec without rotation, and with every rotation with fixed and drawn signs.
inline std::vector<OperandSpec> every_rotation_of(OperandSpec spec) {
  std::vector<OperandSpec> specs = {spec};
  for (const int points : {16, 32, 64, 128}) {
    for (const int rotations : {1, 2}) {
      for (const Signs signs : {Signs::fixed, Signs::micro_batch}) {
        spec.rotate = points;
        spec.rotations = rotations;
        spec.signs = signs;
        if (is_supported(spec)) specs.push_back(spec);
      }
    }
  }
  return specs;
}

inline bool fits(const OperandSpec& spec, int64_t rows, int64_t inner) {
  return inner % inner_multiple(spec) == 0 && (spec.block == BlockShape::row || rows % 16 == 0);
}

inline Matrix scaled(const Matrix& matrix, float factor) {
  std::vector<float> values = matrix.values;
  for (float& value : values) value *= factor;
  return Matrix(matrix.rows, matrix.cols, std::move(values));
}

// Returns normal deviates whose magnitude differs by rows and columns, with FP32 mantissas: scales from subnormal to
// largest.
inline Matrix uneven_matrix(int64_t rows, int64_t cols) {
  std::vector<float> values = normal_matrix(rows, cols, 11).values;
  for (int64_t i = 0; i < rows * cols; ++i) {
    const int exponent = static_cast<int>((i / cols * 7 + i % cols / 16 * 5) % 23) - 20;
    values[static_cast<size_t>(i)] = std::ldexp(values[static_cast<size_t>(i)] * 1.000123f, exponent);
  }
  return Matrix(rows, cols, std::move(values));
}

}  // namespace nibble::test
