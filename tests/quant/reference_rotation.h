// Hadamard rotations by their definition, one element at a time.
#pragma once

#include "tests/quant/reference_codec.h"
#include "tests/quant/reference_problem.h"

namespace nibble::test {

// Returns whether the sign of this inner position is -1 in this rotation.
inline bool reference_sign(const ReferenceProblem& problem, int rotation, int64_t position) {
  const OperandSpec& spec = problem.spec;
  PhiloxBlock drawn{};
  if (spec.signs != Signs::fixed) {
    const auto index = static_cast<uint64_t>(position / 128) + static_cast<uint64_t>(rotation) * 4294967296u +
                       uint64_t{problem.signs.gemm} * 68719476736u;
    drawn = reference_random(problem.signs.stream, index);
  } else if (spec.rotate == 16) {
    const auto bit = static_cast<uint32_t>(position % 16);
    return ((problem.sign_mask >> (problem.mistakes.reverse_sign_mask ? 15 - bit : bit)) & 1u) != 0;
  } else {
    drawn = philox4x32_10(PhiloxBlock{{0, 0, 0, static_cast<uint32_t>(rotation)}}, 0, 0);
  }
  const int64_t bit = position % 128;
  return (drawn.word[bit / 32] >> (bit % 32)) % 2 != 0;
}

// Returns element `index` of x after `stages` butterflies with strides 1, 2, 4, ..., by their definition. (As a signed
// sum the value could differ in its rounding, and in the sign of a zero.)
inline float reference_butterfly(const float* x, int index, int stages) {
  if (stages == 0) return x[index];
  const int stride = 1 << (stages - 1);
  const float low = reference_butterfly(x, index & ~stride, stages - 1);
  const float high = reference_butterfly(x, index | stride, stages - 1);
  return (index & stride) == 0 ? low + high : low - high;
}

inline void reference_rotate_once(ReferenceProblem& problem, int rotation) {
  const int points = problem.spec.rotate;
  const float magnitude = points == 16 ? 0.25f : 1.0f;
  int stages = 0;
  while (1 << stages < points) ++stages;
  for (int64_t row = 0; row < problem.rows; ++row) {
    for (int64_t first = 0; first < problem.inner; first += points) {
      float* group = problem.operand.data() + row * problem.inner + first;
      float signed_group[128];
      for (int i = 0; i < points; ++i)
        signed_group[i] = group[i] * (reference_sign(problem, rotation, first + i) ? -magnitude : magnitude);
      for (int i = 0; i < points; ++i) group[i] = reference_butterfly(signed_group, i, stages);
    }
  }
}

inline void transpose_square(ReferenceProblem& problem) {
  for (int64_t row = 0; row < problem.rows; ++row) {
    for (int64_t k = 0; k < row; ++k) {
      std::swap(problem.operand[static_cast<size_t>(row * problem.inner + k)],
                problem.operand[static_cast<size_t>(k * problem.inner + row)]);
    }
  }
}

inline void reference_rotate(ReferenceProblem& problem) {
  const bool sixteen = problem.spec.rotate == 16;
  if (problem.mistakes.rotate_before_transpose) transpose_square(problem);
  for (float& value : problem.operand) value = sixteen ? reference_bf16(value) : value;
  for (int rotation = 0; rotation < problem.spec.rotations; ++rotation) reference_rotate_once(problem, rotation);
  const bool rounds = sixteen && !problem.mistakes.keep_rotation_in_fp32;
  for (float& value : problem.operand) value = rounds ? reference_bf16(value) : value;
  if (problem.mistakes.rotate_before_transpose) transpose_square(problem);
}

}  // namespace nibble::test
