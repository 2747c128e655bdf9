// What tests of AdamW share: the dtypes in which it keeps weights and state, and numbers to work on.
#pragma once

#include <vector>

#include "quant/format/dtype.h"
#include "quant/format/philox.h"

namespace nibble {

struct Kind {
  DType weights = DType::bf16;
  DType master = DType::bf16;
  DType moments = DType::f32;
};
inline const std::vector<Kind> all_kinds = {
    {DType::f32, DType::f32, DType::f32},   {DType::f32, DType::f32, DType::bf16},
    {DType::bf16, DType::f32, DType::f32},  {DType::bf16, DType::f32, DType::bf16},
    {DType::bf16, DType::bf16, DType::f32}, {DType::bf16, DType::bf16, DType::bf16}};

// Returns a number in [-0.5, 0.5).
inline float noise(uint64_t seed, uint64_t index) {
  return static_cast<float>(
             philox4x32_10({{static_cast<uint32_t>(index), 1, 2, 3}}, static_cast<uint32_t>(seed), 9).word[0]) /
             4294967296.0f -
         0.5f;
}

}  // namespace nibble
