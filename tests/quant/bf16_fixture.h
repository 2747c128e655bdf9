// The BF16 kernels that this machine can run, and numbers that tell exact arithmetic from nearly exact.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "quant/format/codec.h"
#include "quant/gemm/cpu/bf16_gemm.h"
#include "quant/gemm_reference.h"

namespace nibble {

struct NamedBf16Kernels {
  std::string name;
  const cpu::Bf16Kernels* kernels;
};

// Returns both kinds of kernels of a level that has two, whichever the level prefers.
inline std::vector<NamedBf16Kernels> bf16_kernels() {
  std::vector<NamedBf16Kernels> all;
  for (const InstructionSet level : levels()) {
    if (level == InstructionSet::avx512_bf16) all.push_back({"BF16 dot products", &cpu::bf16_avx512_bf16});
    if (level == InstructionSet::avx512) all.push_back({"AVX-512 multiply-adds", &cpu::bf16_avx512});
    if (level == InstructionSet::avx2) all.push_back({"AVX2", &cpu::bf16_avx2});
    if (level == InstructionSet::portable) all.push_back({"portable", &cpu::bf16_portable});
  }
  return all;
}

enum class Numbers {
  normal,      // a Gaussian
  tiny,        // products and sums around the smallest normal number, subnormal factors among them
  any_finite,  // any finite bit pattern: overflow to infinity, and from there to NaN
  any,         // any bit pattern
};

inline BFloat16 draw(Numbers numbers, std::mt19937& generator) {
  std::normal_distribution<float> normal;
  const auto bits = static_cast<uint16_t>(generator());
  switch (numbers) {
    case Numbers::normal: return bf16_nearest(normal(generator));
    case Numbers::tiny: {
      const bool subnormal = generator() % 8 == 0;
      const auto exponent = static_cast<uint16_t>(subnormal ? 0 : 60 + generator() % 6);
      return BFloat16{static_cast<uint16_t>((bits & 0x807FU) | (exponent << 7))};
    }
    case Numbers::any_finite: {
      const bool finite = (bits & 0x7F80U) != 0x7F80U;
      return BFloat16{finite ? bits : static_cast<uint16_t>(bits & 0xBFFFU)};
    }
    case Numbers::any: break;
  }
  return BFloat16{bits};
}

inline std::vector<BFloat16> draw(Numbers numbers, size_t count, std::mt19937& generator) {
  std::vector<BFloat16> values(count);
  for (BFloat16& value : values) value = draw(numbers, generator);
  return values;
}

}  // namespace nibble
