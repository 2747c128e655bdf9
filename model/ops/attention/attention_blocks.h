// Blocks of queries and keys, their products, and the pieces of a workspace, for the two passes of attention
// (attention_forward.cpp and attention_backward.cpp). This header is internal to attention.
//
// Scores exist for one block of queries and one block of keys at a time. Operands in BF16 are multiplied by
// packed_matmul, for which probabilities and gradients of scores are rounded to BF16, too; operands in FP32 are
// multiplied by small_matmul. Sums are FP32 in both.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

#include "model/ops/attention/attention.h"
#include "quant/gemm/cpu/packed_matmul.h"
#include "quant/gemm/gemm.h"

namespace nibble::attention {

constexpr int64_t block_size = 64;   // queries, or keys, of a block
constexpr int64_t group_blocks = 4;  // blocks of queries that use a block of keys while it is packed
constexpr int64_t longest_group = group_blocks * block_size;  // queries

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

template <class T>
struct Matrix {
  T* data;
  int64_t row_stride, col_stride;  // elements

  Matrix transposed() const { return {data, col_stride, row_stride}; }
  Matrix from_row(int64_t row) const { return {data + row * row_stride, row_stride, col_stride}; }
};

// The heads of one sequence in qkv or its gradient: matrices [sequence_length, head_dim].
template <class T>
struct SequenceHeads {
  T* sequence;
  const AttentionShape& shape;

  SequenceHeads(T* qkv, const AttentionShape& attention_shape, int64_t index)
      : sequence(qkv + index * attention_shape.sequence_length * attention_shape.qkv_features()),
        shape(attention_shape) {}
  Matrix<T> query(int64_t head) const { return {sequence + head * shape.head_dim, shape.qkv_features(), 1}; }
  Matrix<T> key(int64_t kv_head) const { return query(shape.query_heads + kv_head); }
  Matrix<T> value(int64_t kv_head) const { return query(shape.query_heads + shape.kv_heads + kv_head); }
};

// Returns one head of one sequence in the output or its gradient: [sequence_length, head_dim].
template <class T>
Matrix<T> output_head(const AttentionShape& shape, T* output, int64_t sequence, int64_t head) {
  const int64_t stride = shape.output_features();
  return {output + sequence * shape.sequence_length * stride + head * shape.head_dim, stride, 1};
}

// The document starts of one sequence, if they limit what its queries see. Starts never decrease along a sequence, so
// the blocks of keys that a block of queries sees begin with the one in which its first query's document begins.
struct DocumentStarts {
  const int32_t* data;  // [sequence_length], or null: all is one document

  DocumentStarts(const Tensor& document_starts, const AttentionShape& shape, int64_t sequence)
      : data(document_starts.empty() ? nullptr : document_starts.as<int32_t>() + sequence * shape.sequence_length) {}
  // Returns the first key of the first block that the block of queries beginning at `query` sees.
  int64_t first_key(int64_t query) const { return data == nullptr ? 0 : data[query] / block_size * block_size; }
  // Returns true if the document of one of the queries hides a key of the block beginning at `key`.
  bool hide(int64_t key, Range queries) const { return data != nullptr && data[queries.end - 1] > key; }
};

// Row-major FP32 numbers that a product is written to or added to.
struct Target {
  float* data;
  int64_t row_stride;
  bool accumulate = false;
};

// The right operand of several products. A BF16 operand is packed into memory; an FP32 operand is used in place.
template <class T>
class RightOperand;

template <>
class RightOperand<BFloat16> {
 public:
  explicit RightOperand(float* memory) : packed_(reinterpret_cast<std::byte*>(memory)) {}
  void pack(const Matrix<const BFloat16>& b, int64_t k, int64_t n) {
    k_ = k;
    n_ = n;
    pack_right({b.data, b.row_stride, b.col_stride}, k, n, packed_);
  }
  // c = a[m, k] b, or c += a[m, k] b if c.accumulate is set.
  void multiply(const Matrix<const BFloat16>& a, int64_t m, const Target& c) const {
    packed_matmul({{a.data, a.row_stride, a.col_stride}, packed_, c.data, c.row_stride, m, n_, k_, c.accumulate});
  }

 private:
  std::byte* packed_;
  int64_t k_ = 0, n_ = 0;
};

template <>
class RightOperand<float> {
 public:
  explicit RightOperand(float* /*memory*/) {}
  void pack(const Matrix<const float>& b, int64_t k, int64_t n) {
    b_ = b;
    k_ = k;
    n_ = n;
  }
  void multiply(const Matrix<const float>& a, int64_t m, const Target& c) const {
    small_matmul({a.data, a.row_stride, a.col_stride, b_.data, b_.row_stride, b_.col_stride, c.data, c.row_stride, m,
                  n_, k_, c.accumulate});
  }

 private:
  Matrix<const float> b_{};
  int64_t k_ = 0, n_ = 0;
};

inline int64_t aligned(int64_t floats) {
  return round_up(floats, int64_t{16});
}

// Returns how many floats hold a packed block [block_size, head_dim], or its transpose.
inline int64_t packed_floats(int64_t head_dim) {
  const size_t bytes = std::max(packed_right_bytes(block_size, head_dim), packed_right_bytes(head_dim, block_size));
  return aligned(div_ceil(static_cast<int64_t>(bytes), int64_t{4}));
}

// Hands out the pieces of a workspace, aligned to 64 bytes like its base. If the base is null, it only adds up their
// sizes.
class Pieces {
 public:
  explicit Pieces(float* base) : base_(base) {}
  float* take(int64_t floats) {
    const int64_t offset = std::exchange(used_, used_ + aligned(floats));
    return base_ == nullptr ? nullptr : base_ + offset;
  }
  int64_t used() const { return used_; }

 private:
  float* base_;
  int64_t used_ = 0;
};

inline float score_scale(const AttentionShape& shape) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
}

// Returns the number of queries (or keys) of a task: a group, or fewer if there would be too few tasks for the threads.
int64_t balanced_group(int64_t heads, int64_t sequence_length);

// Return the number of floats in one thread's part of the workspace.
int64_t forward_floats(const AttentionShape& shape);
int64_t backward_floats(const AttentionShape& shape);

// The two passes, for checked operands and a workspace of `per_thread` floats for each thread.
template <class T>
void forward(const AttentionForward& problem, float* workspace, int64_t per_thread);
template <class T>
void backward(const AttentionBackward& problem, float* workspace, int64_t per_thread);

}  // namespace nibble::attention
