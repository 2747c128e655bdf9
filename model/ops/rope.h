// Rotary position embedding: in each head of size d, elements i and i + d/2 are rotated by the angle
// position * theta^(-2i/d). Source: Su et al. 2021, arXiv:2104.09864, in the half-split arrangement of GPT-NeoX.
#pragma once

#include "dist/device/operator.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// The angle by which a pair of elements is rotated from one position to the next.
struct RopeFrequencies {
  double theta = 10000;
  // Scaling of Llama 3, by which a model reads longer texts than those it was trained on: frequencies that turn fewer
  // than low_frequency_factor times in original_length tokens are divided by scaling_factor, those that turn more than
  // high_frequency_factor times are kept, and those between are mixed of both. A factor of 1 changes no frequency.
  // Source: the type "llama3" of the library transformers.
  double scaling_factor = 1;
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  int64_t original_length = 8192;
};

// Fills the table f32 [sequence_length, head_dim / 2, 2] with cosine and sine of every angle, computed in FP64.
void fill_rope_table(const RopeFrequencies& frequencies, const Tensor& table);

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
