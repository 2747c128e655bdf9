// The forward pass of attention with the bits of the CPU: a running maximum and sum of each query's scores.
#include <limits>

#include "model/ops/attention/attention_exact.cuh"
#include "model/ops/attention/attention_exact.h"

namespace nibble::cuda::exact_attention {
namespace {

template <class T, bool masked>
struct Forward {
  Sizes sizes;
  Heads<const T> query, key, value;
  Heads<T> output;
  int first;           // position of the first query; the rows of keys begin at position 0
  float* log_sum_exp;  // [sequences, query_heads, sequence_length]
  DocumentStarts<masked> document_starts;
};

// The work of a block of threads. Blocks of queries come in descending order, because the last see the most keys; each
// has all heads of all sequences, and each of these has the parts of a head's columns.
struct ForwardWork {
  int query, sequence, head, first_column;

  __device__ __forceinline__ ForwardWork(const Sizes& sizes, int block_columns) {
    const int parts = (sizes.head_dim + block_columns - 1) / block_columns;
    const int heads = sizes.sequences * sizes.query_heads;
    const int query_blocks = (sizes.sequence_length + tile - 1) / tile;
    int index = static_cast<int>(blockIdx.x);
    first_column = index % parts * block_columns;
    index /= parts;
    sequence = index % heads / sizes.query_heads;
    head = index % heads % sizes.query_heads;
    query = (query_blocks - 1 - index / heads) * tile;
  }
};

// The state of this thread's rows after some blocks of keys.
template <int columns>
struct RowState {
  float largest[share];
  float sums[share];  // of the thread's lane
  float outputs[share][columns];
};

// Returns to all sixteen threads of a row the largest of its scores, found as on the CPU.
__device__ __forceinline__ float largest_of_row(const float (&scores)[share]) {
  float highest = -std::numeric_limits<float>::infinity();
#pragma unroll
  for (int c = 0; c < share; ++c) highest = scores[c] > highest ? scores[c] : highest;
#pragma unroll
  for (int width = lanes / 2; width > 0; width /= 2) {
    const float other = __shfl_xor_sync(all_lanes, highest, width, lanes);
    highest = other > highest ? other : highest;
  }
  return __shfl_sync(all_lanes, highest, 0, lanes);
}

// The keys of a tile that the rows of this thread see: from hidden[row] on, and up to the row's own position.
struct TileMask {
  int ahead;          // of the tile's first query beyond the tile's first key
  bool first;         // the state is not set yet
  int hidden[share];  // read with a mask
};

// Writes to `weights` the probabilities times the final sum, as far as the maximum is known, and brings the state to
// the new maximum, except for the outputs of this block of keys. A row that has seen no key yet, which a mask may
// cause, has a sum of zero and a maximum that can be subtracted.
template <class T, bool masked, int columns>
__device__ __forceinline__ void softmax_block(float (&scores)[share][share], float scale, const TileMask& mask,
                                              RowState<columns>& state, float* weights) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  constexpr float none = masked ? std::numeric_limits<float>::max() : infinity;
  const int x = static_cast<int>(threadIdx.x) % lanes;
  const int y = static_cast<int>(threadIdx.x) / lanes;
#pragma unroll
  for (int r = 0; r < share; ++r) {
    const int row = y + r * lanes;
    const int visible = mask.ahead + row + 1;
#pragma unroll
    for (int c = 0; c < share; ++c) {
      const float scaled = scores[r][c] * scale;
      const int column = x + c * lanes;
      scores[r][c] = column < visible && (!masked || column >= mask.hidden[r]) ? scaled : -infinity;
    }
    const float here = largest_of_row(scores[r]);
    const float before = mask.first ? -none : state.largest[r];
    const float now = here > before ? here : before;
    const float factor = cuda::exp_f32(before - now);
    state.largest[r] = now;
    float sum = mask.first ? 0.0f : state.sums[r] * factor;
#pragma unroll
    for (int c = 0; c < share; ++c) {
      const float probability = cuda::exp_f32(scores[r][c] - now);
      sum += probability;
      weights[row * weight_stride + x + c * lanes] = Arithmetic<T>::rounded(probability);
    }
    state.sums[r] = sum;
#pragma unroll
    for (int c = 0; c < columns; ++c) {
      state.outputs[r][c] = mask.first ? 0.0f : Arithmetic<T>::flushed(state.outputs[r][c] * factor);
    }
  }
}

template <class T, bool masked, int columns>
__device__ __forceinline__ void finish_rows(const Forward<T, masked>& problem, const ForwardWork& work,
                                            const RowState<columns>& state) {
  const int x = static_cast<int>(threadIdx.x) % lanes;
#pragma unroll
  for (int r = 0; r < share; ++r) {
    const int position = work.query + static_cast<int>(threadIdx.x) / lanes + r * lanes;
    const float sum = total_of_row(state.sums[r]);
    if (position >= problem.sizes.sequence_length) continue;
    if (x == 0 && work.first_column == 0) {
      problem.log_sum_exp[row_of_statistics(problem.sizes, work.sequence, work.head, position)] =
          state.largest[r] + log_f32(sum);
    }
    T* const output = problem.output.row(work.sequence, work.head, position);
    const float factor = 1.0f / sum;
#pragma unroll
    for (int c = 0; c < columns; ++c) {
      const int column = work.first_column + x + c * lanes;
      if (column < problem.sizes.head_dim) store(output[column], state.outputs[r][c] * factor);
    }
  }
}

// A block of threads computes 64 queries of one head, and up to 16 * columns columns of their output.
template <class T, bool masked, int columns>
__global__ void __launch_bounds__(threads, 2) forward_kernel(Forward<T, masked> problem) {
  alignas(16) __shared__ float operands[operand_floats];
  alignas(16) __shared__ float weights[weight_floats];
  const Sizes& sizes = problem.sizes;
  const ForwardWork work(sizes, columns * lanes);
  const int kv_head = work.head / sizes.heads_a_kv_head();
  const Source<T> queries{problem.query.row(work.sequence, work.head, work.query), problem.query.row_stride,
                          sizes.sequence_length - work.query, sizes.head_dim, sizes.aligned};
  RowState<columns> state{};
  int document_starts[share];
#pragma unroll
  for (int r = 0; r < share; ++r) {
    const int position = work.query + static_cast<int>(threadIdx.x) / lanes + r * lanes;
    document_starts[r] = problem.document_starts.of(sizes, work.sequence, position);
  }
  const int first_key = problem.document_starts.first_key(sizes, work.sequence, work.query);
  const int last_query = work.query + tile < sizes.sequence_length ? work.query + tile - 1 : sizes.sequence_length - 1;
  for (int key = first_key; key <= problem.first + last_query; key += tile) {
    const int left = problem.first + sizes.sequence_length - key;
    const Source<T> keys{problem.key.row(work.sequence, kv_head, key), problem.key.row_stride, left, sizes.head_dim,
                         sizes.aligned};
    const Source<T> values{problem.value.row(work.sequence, kv_head, key) + work.first_column, problem.value.row_stride,
                           left < tile ? left : tile, sizes.head_dim - work.first_column, sizes.aligned};
    float scores[share][share];
    multiply_rows<T>(queries, keys, sizes.head_dim, operands, scores);
    TileMask mask{problem.first + work.query - key, key == first_key, {}};
#pragma unroll
    for (int r = 0; r < share; ++r) mask.hidden[r] = document_starts[r] - key;
    softmax_block<T, masked>(scores, sizes.scale, mask, state, weights);
    multiply_weights<T>(weights, values, operands, state.outputs);
  }
  finish_rows(problem, work, state);
}

}  // namespace

void forward(const AttentionForward& problem) {
  const AttentionShape& shape = problem.shape;
  with_storage_type(problem.output.dtype(), [&]<class T>(T) {
    QkvHeads<const T> heads(problem.qkv.as<T>(), shape);
    if (!problem.cache.empty()) {
      const int64_t features = problem.cache.cols();
      heads.key = {problem.cache.as<T>(), features, 0, shape.head_dim};
      heads.value = {problem.cache.as<T>() + features / 2, features, 0, shape.head_dim};
    }
    with_mask(shape, [&]<bool masked>(std::bool_constant<masked>) {
      const Forward<T, masked> arguments{sizes_of<T>(shape, {problem.qkv.data(), problem.cache.data()}),
                                         heads.query,
                                         heads.key,
                                         heads.value,
                                         output_heads(problem.output.as<T>(), shape),
                                         narrow<int>(problem.first),
                                         problem.log_sum_exp.as<float>(),
                                         {document_starts_or_null(problem.document_starts)}};
      with_columns(shape.head_dim, [&]<int columns>(std::integral_constant<int, columns>) {
        const int64_t blocks = div_ceil<int64_t>(shape.sequence_length, tile) * shape.sequences * shape.query_heads *
                               div_ceil<int64_t>(shape.head_dim, columns * lanes);
        launch("attention_forward", forward_kernel<T, masked, columns>, {dim3(narrow<unsigned>(blocks)), dim3(threads)},
               arguments);
      });
    });
  });
}

}  // namespace nibble::cuda::exact_attention
