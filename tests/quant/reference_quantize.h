// A slow and obvious quantiser: the formulas of docs/numerics.md one element at a time, with tables searched in double
// precision instead of bit arithmetic. It shares no code with quant/format/codec.h or the casts.
#pragma once

#include "tests/quant/reference_eden.h"
#include "tests/quant/reference_nvfp4.h"
#include "tests/quant/reference_rotation.h"
#include "tests/quant/reference_scaled.h"

namespace nibble::test {

// Quantises one operand. Where the result is not finite (amax), codes and scales have no meaning and are not made.
inline ReferenceResult reference_quantize(ReferenceProblem problem) {
  ReferenceResult result;
  const float amax_before = largest_magnitude(problem.operand);
  if (problem.spec.rotate != 0) reference_rotate(problem);
  result.amax = problem.mistakes.amax_before_rotation ? amax_before : largest_magnitude(problem.operand);
  if (!std::isfinite(result.amax)) return result;
  const FormatTraits traits = traits_of(problem.spec.format);
  result.codes.assign(problem.operand.size() * static_cast<size_t>(traits.code_bits) / 8, 0);
  if (traits.block_scale == ScaleCode::none) {
    reference_fp8(problem, result);
  } else if (traits.block_scale == ScaleCode::e8m0) {
    reference_mx(problem, result);
  } else if (problem.spec.round == Rounding::ms_eden) {
    reference_eden(problem, result);
  } else {
    reference_nvfp4(problem, result);
  }
  return result;
}

}  // namespace nibble::test
