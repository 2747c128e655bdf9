// Rotary position embedding: in each head of size d, elements i and i + d/2 are rotated by the angle
// position * theta^(-2i/d). Source: Su et al. 2021, arXiv:2104.09864, in the half-split arrangement of GPT-NeoX.
#pragma once

#include "dist/device/operator.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// Fills the table f32 [sequence_length, head_dim / 2, 2] with cosine and sine of every angle, computed in FP64.
void fill_rope_table(double theta, const Tensor& table);

struct Rope {
  // [sequences * sequence_length, (query_heads + 2 * kv_heads) * head_dim], f32 or bf16: query heads, then key heads,
  // then value heads. Queries and keys are rotated in place.
  Tensor qkv;
  Tensor table;  // f32 [at least sequence_length, head_dim / 2, 2]
  int64_t sequence_length = 0;
  int64_t query_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  bool inverse = false;  // rotates back: turns the gradient of the rotated into that of the original
};
NIBBLE_OPERATOR(void rope(const Rope& problem));

}  // namespace nibble
