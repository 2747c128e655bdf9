// The obvious quantiser of MXFP4, MXFP8 and FP8.
#pragma once

#include "tests/quant/reference_codec.h"
#include "tests/quant/reference_problem.h"

namespace nibble::test {

inline int reference_element(ElementCode element, double value) {
  if (element == ElementCode::e4m3) return reference_signed_e4m3(value);
  return element == ElementCode::e5m2 ? reference_signed_e5m2(value) : reference_e2m1(value);
}

inline int reference_mx_scale(const ReferenceProblem& problem, const float* block) {
  const bool four_bits = problem.spec.format == Format::mxfp4;
  const bool wide = problem.spec.format == Format::mxfp8_e5m2;
  const float amax = largest_magnitude(std::vector<float>(block, block + 32));
  if (problem.spec.scale == ScaleRule::amax) {
    const int reach = four_bits ? 2 : (wide ? 15 : 8);
    return std::max(reference_e8m0_down(amax) - reach, 0);
  }
  if (problem.spec.scale == ScaleRule::amax_up) {
    const float largest = four_bits ? 6.0f : (wide ? 57344.0f : 448.0f);
    return reference_e8m0_up(amax * (1.0f / largest));
  }
  // The root mean square is taken in units of the power of two below amax.
  const int power = reference_e8m0_down(amax);
  float squares = 0;
  for (int i = 0; i < 32; ++i) {
    const auto value = static_cast<float>(block[i] / reference_e8m0_value(power));
    squares = squares + value * value;
  }
  const float target = std::sqrt(squares * 0.03125f) * (2.92247856f / 6.0f);
  return std::clamp(power + reference_e8m0_down(target) - 127, 0, 254);
}

inline void reference_mx(const ReferenceProblem& problem, ReferenceResult& result) {
  const bool stochastic = problem.spec.round == Rounding::stochastic;
  result.decode = stochastic ? 4.0f / 3.0f : 1.0f;
  for (int64_t row = 0; row < problem.rows; ++row) {
    for (int64_t first = 0; first < problem.inner; first += 32) {
      const int scale = reference_mx_scale(problem, problem.operand.data() + row * problem.inner + first);
      result.scales.push_back(static_cast<uint8_t>(scale));
      for (int64_t position = first; position < first + 32; ++position) {
        const double exact = problem.at(row, position) / reference_e8m0_value(scale) * (stochastic ? 0.75 : 1.0);
        const auto value = static_cast<float>(exact);
        int code = reference_element(traits_of(problem.spec.format).element, value);
        if (stochastic) {
          const auto index = static_cast<uint64_t>(row * (problem.inner / 16) + position / 16);
          const int byte = reference_byte(problem.noise, index, static_cast<int>(position % 16));
          code = reference_e2m1_stochastic(value, byte, true);
        }
        store_code(problem, row, position, code, result);
      }
    }
  }
}

inline void reference_fp8(const ReferenceProblem& problem, ReferenceResult& result) {
  const bool wide = problem.spec.format == Format::fp8_e5m2;
  const float amax = problem.given_amax != 0 ? problem.given_amax : result.amax;
  const ReferenceScale scale = reference_tensor_scale(amax, wide ? 57344.0f : 448.0f);
  result.encode = scale.encode;
  result.decode = scale.decode;
  for (int64_t row = 0; row < problem.rows; ++row) {
    for (int64_t position = 0; position < problem.inner; ++position) {
      const float value = problem.at(row, position) * scale.encode;
      store_code(problem, row, position, wide ? reference_signed_e5m2(value) : reference_signed_e4m3(value), result);
    }
  }
}

}  // namespace nibble::test
