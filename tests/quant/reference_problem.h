// The problem and the result of the obvious quantiser (reference_quantize.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "quant/format/hadamard.h"
#include "quant/format/philox.h"
#include "quant/recipe/operand_spec.h"

namespace nibble::test {

// Each member turns on one plausible error, so that tests can show that their data would notice it.
struct Mistakes {
  bool swap_nibbles = false;
  bool drop_sign_of_zero = false;
  bool reverse_sign_mask = false;
  bool rotate_before_transpose = false;  // rotates a square operand along the wrong axis
  bool amax_before_rotation = false;
  bool keep_rotation_in_fp32 = false;
  bool encode_by_quotient = false;  // S_enc / scale instead of 1 / (scale * S_dec)
  bool double_precision = false;    // scales and products in double
  bool e4m3_ties_away = false;
  bool e2m1_ties_away = false;
  bool divide_block_amax_first = false;  // (block_amax / 6) * S_enc
  bool divide_scale_by_six = false;      // S_enc / 6 instead of S_enc * fl32(1/6)
};

struct ReferenceProblem {
  std::vector<float> operand;  // [rows, inner], already transposed
  int64_t rows = 0;
  int64_t inner = 0;
  OperandSpec spec;
  NoiseStream noise;
  Mistakes mistakes = {};
  uint32_t sign_mask = 0xD7E8;
  SignStream signs = {};
  float given_amax = 0;  // delayed scaling

  float at(int64_t row, int64_t position) const { return operand[static_cast<size_t>(row * inner + position)]; }
};

struct ReferenceResult {
  std::vector<uint8_t> codes;   // [rows, inner / 2] or [rows, inner]
  std::vector<uint8_t> scales;  // [rows, inner / block]
  std::vector<float> outer;     // [rows, inner / 128]
  float amax = 0;
  float encode = 0;
  float decode = 0;
};

// Returns block `index` of a stream, by the layout of docs/numerics.md.
inline PhiloxBlock reference_random(const NoiseStream& stream, uint64_t index) {
  PhiloxBlock counter{};
  counter.word[0] = static_cast<uint32_t>(index % 4294967296u);
  counter.word[1] = static_cast<uint32_t>(index / 4294967296u) + stream.micro_batch * 256u;
  counter.word[2] = stream.step;
  counter.word[3] = stream.tensor_id + static_cast<uint32_t>(stream.purpose) * 16777216u;
  return philox4x32_10(counter, static_cast<uint32_t>(stream.seed % 4294967296u),
                       static_cast<uint32_t>(stream.seed / 4294967296u));
}
inline int reference_byte(const NoiseStream& stream, uint64_t index, int position) {
  const uint32_t word = reference_random(stream, index).word[position / 4];
  return static_cast<int>(word / (1u << (8 * (position % 4))) % 256u);
}

inline float largest_magnitude(const std::vector<float>& values) {
  float largest = 0;
  for (const float value : values) {
    if (std::isnan(value)) return std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, std::fabs(value));
  }
  return largest;
}

inline float at_most_largest(float value) {
  constexpr float largest = std::numeric_limits<float>::max();
  return value < largest ? value : largest;
}

struct ReferenceScale {
  float encode = 1;
  float decode = 1;
  float amax = 0;
};
inline ReferenceScale reference_tensor_scale(float amax, float largest) {
  ReferenceScale scale;
  scale.encode = at_most_largest(largest / amax);
  if (amax == 0 || scale.encode == 0) scale.encode = 1;
  scale.decode = 1 / scale.encode;
  scale.amax = amax;
  return scale;
}

inline void store_code(const ReferenceProblem& problem, int64_t row, int64_t position, int code,
                       ReferenceResult& result) {
  const auto at = static_cast<size_t>(row * problem.inner + position);
  if (result.codes.size() == problem.operand.size()) {
    result.codes[at] = static_cast<uint8_t>(code);
    return;
  }
  if (problem.mistakes.drop_sign_of_zero && code == 8) code = 0;
  const bool low = (at % 2 == 0) != problem.mistakes.swap_nibbles;
  result.codes[at / 2] = static_cast<uint8_t>(result.codes[at / 2] | (low ? code : code << 4));
}

}  // namespace nibble::test
