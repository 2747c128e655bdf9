// Causal softmax attention with grouped key and value heads: query head h reads kv head h / (query_heads / kv_heads).
// Scores are scaled by 1 / sqrt(head_dim). They are formed for a block of queries and a block of keys at a time and
// never stored; forward keeps a running maximum and sum, and backward forms the scores again from log_sum_exp. Sources:
// Vaswani et al. 2017, arXiv:1706.03762; Ainslie et al. 2023, arXiv:2305.13245; Dao et al. 2022, arXiv:2205.14135.
//
// Activations are f32 or bf16, one dtype a call; sums and the softmax are FP32. In bf16 the products are those of
// quant/gemm/cpu/packed_matmul.h, and probabilities and the gradients of scores are rounded to BF16 before they are
// multiplied. A finite later token has no influence on any bit of an earlier one, and neither has the length of the
// sequence.
//
// Several documents may share a sequence: if document_starts are given, a token sees only the earlier ones of its own
// document, and finite tokens of another document have no influence on any bit of it.
#pragma once

#include <compare>

#include "dist/device/operator.h"
#include "quant/tensor/tensor.h"

namespace nibble {

struct AttentionShape {
  int64_t sequences = 0;
  int64_t sequence_length = 0;
  int64_t query_heads = 0;
  int64_t kv_heads = 0;  // divides query_heads
  int64_t head_dim = 0;
  bool document_mask = false;  // document_starts are given

  int64_t tokens() const { return sequences * sequence_length; }
  int64_t qkv_features() const { return (query_heads + 2 * kv_heads) * head_dim; }
  int64_t output_features() const { return query_heads * head_dim; }
  auto operator<=>(const AttentionShape&) const = default;
};

// What a model is going to ask of attention. Shapes with fewer sequences or tokens may be asked as well.
struct AttentionUse {
  AttentionShape shape;
  DType dtype = DType::bf16;
  bool training = true;  // false: there are no backward passes
};

// Returns the size of the f32 workspace of the passes of a use. On the CPU it is for the current number of compute
// threads. On a GPU the kernels are chosen here (model/ops/attention/attention_backend_kind.h).
int64_t attention_workspace_floats(const AttentionUse& use, DeviceKind device);
namespace cpu {
int64_t attention_workspace_floats(const AttentionShape& shape, int threads);
}

// Throws ExitCode::bad_config if training would run the exact kernels of a GPU, which take most of its time, on more
// than `longest` tokens a sequence, though nobody asked for them by name.
inline constexpr int64_t longest_unasked_exact = 512;
void refuse_unasked_exact_attention(const AttentionUse& use, int64_t longest, DeviceKind device);

struct AttentionForward {
  AttentionShape shape;
  Tensor qkv;          // [tokens, (query_heads + 2 * kv_heads) * head_dim]: query heads, key heads, value heads
  Tensor output;       // [tokens, query_heads * head_dim]
  Tensor log_sum_exp;  // f32 [sequences, query_heads, sequence_length], of the scaled scores, in nats
  Tensor workspace;    // f32 [attention_workspace_floats]
  // i32 [tokens]: the index in its sequence of the first token of a token's document. Along a sequence it never
  // decreases, and it is never behind the token. Empty: a token sees all earlier ones of its sequence.
  Tensor document_starts = {};
  // Decoding: the queries are those of one sequence's tokens [first, first + shape.sequence_length), and keys and
  // values are read here instead of in qkv: [at least first + sequence_length, 2 * kv_heads * head_dim], key heads,
  // then value heads, those of these tokens included. Every token has the bits that it has in a pass over the whole
  // sequence.
  Tensor cache = {};
  int64_t first = 0;
};
NIBBLE_OPERATOR(void attention_forward(const AttentionForward& problem));

struct AttentionBackward {
  AttentionShape shape;
  Tensor grad_output;           // [tokens, query_heads * head_dim]
  Tensor qkv;                   // as in the forward pass, like output and log_sum_exp
  Tensor output;                // [tokens, query_heads * head_dim]
  Tensor log_sum_exp;           // f32 [sequences, query_heads, sequence_length]
  Tensor grad_qkv;              // [tokens, (query_heads + 2 * kv_heads) * head_dim]: overwritten
  Tensor workspace;             // f32 [attention_workspace_floats]
  Tensor document_starts = {};  // as in the forward pass
};
NIBBLE_OPERATOR(void attention_backward(const AttentionBackward& problem));

namespace cuda {
int64_t attention_workspace_floats(const AttentionUse& use);
void refuse_unasked_exact_attention(const AttentionUse& use, int64_t longest);
}  // namespace cuda

}  // namespace nibble
