// MS-EDEN: the elements are rounded to nearest, the block scales corrected and rounded stochastically.
#pragma once

#include "tests/quant/reference_nvfp4.h"

namespace nibble::test {

struct EdenProducts {
  float squares = 0;   // <v, v>
  float products = 0;  // <v, rounded v>
};
inline float eden_correction(const EdenProducts& sums) {
  return sums.products > 0 ? sums.squares / sums.products : 1.0f;
}

inline EdenProducts eden_encode(const ReferenceProblem& problem, int64_t row, int64_t block, float factor,
                                ReferenceResult& result) {
  EdenProducts sums;
  for (int64_t position = block * 16; position < block * 16 + 16; ++position) {
    const float value = problem.at(row, position) * factor;
    const int code = reference_e2m1(value);
    sums.squares = sums.squares + value * value;
    sums.products = sums.products + value * static_cast<float>(reference_e2m1_value(code));
    store_code(problem, row, position, code, result);
  }
  return sums;
}

// Returns 24 random bits for a block.
inline uint32_t eden_noise(const ReferenceProblem& problem, size_t block) {
  return reference_random(problem.noise, block).word[0] / 256u;
}

inline void reference_eden_scale_first(const ReferenceProblem& problem, ReferenceResult& result) {
  const OperandSpec& spec = problem.spec;
  const ReferenceScale above = reference_tensor_scale(result.amax, reference_largest(spec));
  result.encode = above.encode;
  result.decode = above.decode;
  std::vector<float> scales;
  std::vector<EdenProducts> sums;
  for (int64_t row = 0; row < problem.rows; ++row) {
    for (int64_t block = 0; block < problem.inner / 16; ++block) {
      const float amax = reference_block_amax(problem, reference_block(problem, row, block));
      const float d = at_most_largest(amax * (above.encode * (1.0f / default_range(spec))));
      const int scale = reference_e4m3(d);
      scales.push_back(static_cast<float>(reference_e4m3_value(scale)));
      sums.push_back(
          eden_encode(problem, row, block, scale == 0 ? 0.0f : reference_element_factor(scale, above), result));
    }
  }
  const size_t together = spec.correction == EdenCorrection::per_16 ? 1 : 8;
  for (size_t block = 0; block < scales.size(); ++block) {
    EdenProducts all;
    for (size_t i = block / together * together; i < block / together * together + together; ++i) {
      const float weight = spec.correction == EdenCorrection::per_128 ? scales[i] * scales[i] : 1.0f;
      all.squares = all.squares + weight * sums[i].squares;
      all.products = all.products + weight * sums[i].products;
    }
    const float corrected = eden_correction(all) * scales[block];
    result.scales.push_back(static_cast<uint8_t>(reference_e4m3_stochastic(corrected, eden_noise(problem, block), 24)));
  }
}

// Keeps the leading 4 bits of the mantissa.
inline float cut_to_four_bits(float value) {
  if (value < std::numeric_limits<float>::min()) return std::floor(std::ldexp(value, 130)) * 0x1p-130f;
  int exponent = 0;
  const float mantissa = std::frexp(value, &exponent);
  return std::ldexp(std::floor(mantissa * 32), exponent - 5);
}

inline void reference_eden_post_hoc(const ReferenceProblem& problem, ReferenceResult& result) {
  const bool published = problem.spec.correction == EdenCorrection::post_hoc_published;
  std::vector<float> corrected;
  for (int64_t row = 0; row < problem.rows; ++row) {
    for (int64_t block = 0; block < problem.inner / 16; ++block) {
      const float amax = reference_block_amax(problem, reference_block(problem, row, block));
      float pseudo = amax * (1.0f / default_range(problem.spec));
      if (published) pseudo = cut_to_four_bits(pseudo);
      const EdenProducts sums = eden_encode(problem, row, block, at_most_largest(1.0f / pseudo), result);
      const float scale = pseudo * eden_correction(sums);
      corrected.push_back(published ? reference_bf16(scale) : scale);
    }
  }
  const ReferenceScale above = reference_tensor_scale(largest_magnitude(corrected), default_ceiling(problem.spec));
  result.encode = above.encode;
  result.decode = above.decode;
  for (size_t block = 0; block < corrected.size(); ++block) {
    const float scale = corrected[block] * above.encode;
    int byte = 0;
    if (!published) {
      byte = reference_e4m3_stochastic(scale, eden_noise(problem, block), 24);
    } else if (scale < 0.015625f) {
      byte = reference_e4m3(scale);
    } else {
      const uint32_t sixteen = reference_random(problem.noise, block).word[0] % 65536u;
      byte = reference_e4m3_stochastic(scale, sixteen * 16, 20);
    }
    result.scales.push_back(static_cast<uint8_t>(byte));
  }
}

inline void reference_eden(const ReferenceProblem& problem, ReferenceResult& result) {
  const EdenCorrection kind = problem.spec.correction;
  const bool post_hoc = kind == EdenCorrection::post_hoc || kind == EdenCorrection::post_hoc_published;
  (post_hoc ? reference_eden_post_hoc : reference_eden_scale_first)(problem, result);
}

}  // namespace nibble::test
