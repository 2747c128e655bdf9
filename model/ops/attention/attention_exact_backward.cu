// The backward pass of attention with the bits of the CPU. Every gradient is one sum in the CPU's order, kept in
// registers by one block of threads: gradients of keys and values over query heads and blocks of queries, and gradients
// of queries over blocks of keys. Scores are therefore formed twice, and no sum is shared by several blocks.
#include "model/ops/attention/attention_exact.cuh"
#include "model/ops/attention/attention_exact.h"

namespace nibble::cuda::exact_attention {
namespace {

template <class T, bool masked>
struct Backward {
  Sizes sizes;
  QkvHeads<const T> heads;
  Heads<const T> output, grad_output;
  QkvHeads<T> gradients;
  const float* log_sum_exp;  // [sequences, query_heads, sequence_length], like the next
  float* means;              // for each query the mean of its gradients of probabilities, over the probabilities
  DocumentStarts<masked> document_starts;

  // Returns the rows of a head from `position` on, with the columns from `first_column` on.
  __device__ __forceinline__ Source<T> source(const Heads<const T>& operand, int sequence, int head, int position,
                                              int first_column = 0) const {
    const int left = sizes.sequence_length - position;
    return {operand.row(sequence, head, position) + first_column, operand.row_stride, left < tile ? left : tile,
            sizes.head_dim - first_column, sizes.aligned};
  }
};

// means[row] = the sum of grad_output * output over a query's elements. Sixteen threads, the lanes, compute a row.
template <class T, bool masked>
__global__ void means_kernel(Backward<T, masked> problem) {
  const Sizes& sizes = problem.sizes;
  const int64_t row = global_thread() / lanes;
  const bool inside = row < row_of_statistics(sizes, sizes.sequences, 0, 0);
  const int head = static_cast<int>(row % sizes.query_heads);  // the heads of a token are neighbours
  const int64_t token = row / sizes.query_heads;
  const int sequence = static_cast<int>(token / sizes.sequence_length);
  const int position = static_cast<int>(token % sizes.sequence_length);
  float sum = 0.0f;
  if (inside) {
    const T* const gradient = problem.grad_output.row(sequence, head, position);
    const T* const output = problem.output.row(sequence, head, position);
    for (int i = static_cast<int>(threadIdx.x) % lanes; i < sizes.head_dim; i += lanes) {
      sum += to_float(gradient[i]) * to_float(output[i]);
    }
  }
  sum = total_of_row(sum);
  if (inside && threadIdx.x % lanes == 0) problem.means[row_of_statistics(sizes, sequence, head, position)] = sum;
}

// Replaces a thread's share of a tile by the factors of the next products: scores by probabilities, gradients of
// probabilities by gradients of scaled scores. `query` and `key` are positions.
template <class T>
__device__ __forceinline__ void softmax_backward(float& score, float& gradient, float scale, float log_sum_exp,
                                                 float mean, bool visible) {
  const float probability = cuda::exp_f32(score * scale - log_sum_exp);
  const float of_score = probability * (gradient - mean);
  score = visible ? Arithmetic<T>::rounded(probability) : 0.0f;
  gradient = visible ? Arithmetic<T>::rounded(of_score) : 0.0f;
}

// Reads what write_weights() wrote; every thread reads its own values.
__device__ __forceinline__ void read_weights(const float* weights, float (&values)[share][share]) {
#pragma unroll
  for (int r = 0; r < share; ++r) {
#pragma unroll
    for (int c = 0; c < share; ++c) {
      const int row = static_cast<int>(threadIdx.x) / lanes + r * lanes;
      values[r][c] = weights[row * weight_stride + static_cast<int>(threadIdx.x) % lanes + c * lanes];
    }
  }
}

__device__ __forceinline__ void write_weights(const float (&values)[share][share], float* weights) {
#pragma unroll
  for (int r = 0; r < share; ++r) {
#pragma unroll
    for (int c = 0; c < share; ++c) {
      const int row = threadIdx.x / lanes + r * lanes;
      weights[row * weight_stride + threadIdx.x % lanes + c * lanes] = values[r][c];
    }
  }
}

// Writes this thread's rows and columns of a complete gradient.
template <class T, int columns>
__device__ __forceinline__ void write_gradient(const float (&sums)[share][columns], float scale,
                                               const Heads<T>& gradients, const Sizes& sizes, int sequence, int head,
                                               int position, int first_column) {
#pragma unroll
  for (int r = 0; r < share; ++r) {
    const int row = position + static_cast<int>(threadIdx.x) / lanes + r * lanes;
    if (row >= sizes.sequence_length) return;
    T* const gradient = gradients.row(sequence, head, row);
#pragma unroll
    for (int c = 0; c < columns; ++c) {
      const int column = first_column + static_cast<int>(threadIdx.x) % lanes + c * lanes;
      if (column < sizes.head_dim) store(gradient[column], sums[r][c] * scale);
    }
  }
}

// The 64 rows of a head, and the columns, that a block of threads computes. The first blocks of keys and the last
// blocks of queries have the most work and go first.
struct BackwardWork {
  int block, sequence, head, first_column;

  __device__ __forceinline__ BackwardWork(const Sizes& sizes, int heads, int block_columns) {
    const int parts = (sizes.head_dim + block_columns - 1) / block_columns;
    int index = static_cast<int>(blockIdx.x);
    first_column = index % parts * block_columns;
    index /= parts;
    head = index % heads;
    index /= heads;
    sequence = index % sizes.sequences;
    block = index / sizes.sequences;
  }
};

// Computes tiles [keys, queries], so that they are left operands of the gradients of keys and values. With a mask it
// needs more registers than two blocks a multiprocessor would leave it.
template <class T, bool masked, int columns>
__global__ void __launch_bounds__(threads, masked ? 1 : 2) grad_keys_kernel(Backward<T, masked> problem) {
  alignas(16) __shared__ float operands[operand_floats];
  alignas(16) __shared__ float weights[weight_floats];
  const Sizes& sizes = problem.sizes;
  const BackwardWork work(sizes, sizes.kv_heads, columns * lanes);
  const int key = work.block * tile;
  const Source<T> keys = problem.source(problem.heads.key, work.sequence, work.head, key);
  const Source<T> values = problem.source(problem.heads.value, work.sequence, work.head, key);
  float grad_keys[share][columns] = {};
  float grad_values[share][columns] = {};
  const int group = sizes.heads_a_kv_head();
  for (int head = work.head * group; head < (work.head + 1) * group; ++head) {
    for (int query = key; query < sizes.sequence_length; query += tile) {
      if (problem.document_starts.first_key(sizes, work.sequence, query) > key) break;
      float scores[share][share];
      float gradients[share][share];
      multiply_rows<T>(keys, problem.source(problem.heads.query, work.sequence, head, query), sizes.head_dim, operands,
                       scores);
      write_weights(scores, weights);  // frees registers for the next product
      multiply_rows<T>(values, problem.source(problem.grad_output, work.sequence, head, query), sizes.head_dim,
                       operands, gradients);
      read_weights(weights, scores);
#pragma unroll
      for (int c = 0; c < share; ++c) {
        const int column = static_cast<int>(threadIdx.x) % lanes + c * lanes;
        const bool inside = query + column < sizes.sequence_length;
        const int64_t row = row_of_statistics(sizes, work.sequence, head, query + column);
        const float log_sum_exp = inside ? problem.log_sum_exp[row] : 0.0f;
        const float mean = inside ? problem.means[row] : 0.0f;
        const int start = problem.document_starts.of(sizes, work.sequence, query + column) - key;
#pragma unroll
        for (int r = 0; r < share; ++r) {
          const int key_row = static_cast<int>(threadIdx.x) / lanes + r * lanes;
          const bool visible = (query > key || column >= key_row) && (!masked || key_row >= start);
          softmax_backward<T>(scores[r][c], gradients[r][c], sizes.scale, log_sum_exp, mean, visible);
        }
      }
      write_weights(scores, weights);
      multiply_weights<T>(weights, problem.source(problem.grad_output, work.sequence, head, query, work.first_column),
                          operands, grad_values);
      write_weights(gradients, weights);
      multiply_weights<T>(weights, problem.source(problem.heads.query, work.sequence, head, query, work.first_column),
                          operands, grad_keys);
    }
  }
  write_gradient(grad_keys, sizes.scale, problem.gradients.key, sizes, work.sequence, work.head, key,
                 work.first_column);
  write_gradient(grad_values, 1.0f, problem.gradients.value, sizes, work.sequence, work.head, key, work.first_column);
}

// Computes tiles [queries, keys].
template <class T, bool masked, int columns>
__global__ void __launch_bounds__(threads, 2) grad_queries_kernel(Backward<T, masked> problem) {
  alignas(16) __shared__ float operands[operand_floats];
  alignas(16) __shared__ float weights[weight_floats];
  const Sizes& sizes = problem.sizes;
  const BackwardWork work(sizes, sizes.query_heads, columns * lanes);
  const int query = ((sizes.sequence_length + tile - 1) / tile - 1 - work.block) * tile;
  const int kv_head = work.head / sizes.heads_a_kv_head();
  const Source<T> queries = problem.source(problem.heads.query, work.sequence, work.head, query);
  const Source<T> grad_output = problem.source(problem.grad_output, work.sequence, work.head, query);
  float log_sum_exp[share];
  float means[share];
  int document_starts[share];
#pragma unroll
  for (int r = 0; r < share; ++r) {
    const int position = query + static_cast<int>(threadIdx.x) / lanes + r * lanes;
    const bool inside = position < sizes.sequence_length;
    const int64_t row = row_of_statistics(sizes, work.sequence, work.head, position);
    log_sum_exp[r] = inside ? problem.log_sum_exp[row] : 0.0f;
    means[r] = inside ? problem.means[row] : 0.0f;
    document_starts[r] = problem.document_starts.of(sizes, work.sequence, position);
  }
  float grad_queries[share][columns] = {};
  for (int key = problem.document_starts.first_key(sizes, work.sequence, query); key <= query; key += tile) {
    float scores[share][share];
    float gradients[share][share];
    multiply_rows<T>(queries, problem.source(problem.heads.key, work.sequence, kv_head, key), sizes.head_dim, operands,
                     scores);
    multiply_rows<T>(grad_output, problem.source(problem.heads.value, work.sequence, kv_head, key), sizes.head_dim,
                     operands, gradients);
#pragma unroll
    for (int r = 0; r < share; ++r) {
      const int row = static_cast<int>(threadIdx.x) / lanes + r * lanes;
#pragma unroll
      for (int c = 0; c < share; ++c) {
        const int column = static_cast<int>(threadIdx.x) % lanes + c * lanes;
        const bool visible = (query > key || row >= column) && (!masked || key + column >= document_starts[r]);
        softmax_backward<T>(scores[r][c], gradients[r][c], sizes.scale, log_sum_exp[r], means[r], visible);
      }
    }
    write_weights(gradients, weights);
    multiply_weights<T>(weights, problem.source(problem.heads.key, work.sequence, kv_head, key, work.first_column),
                        operands, grad_queries);
  }
  write_gradient(grad_queries, sizes.scale, problem.gradients.query, sizes, work.sequence, work.head, query,
                 work.first_column);
}

template <class T, bool masked>
void launch_means(const Backward<T, masked>& arguments) {
  const Sizes& sizes = arguments.sizes;
  const int64_t rows = int64_t{sizes.sequences} * sizes.query_heads * sizes.sequence_length;
  launch("attention_means", means_kernel<T, masked>, one_thread_each(rows * lanes), arguments);
}

template <class T, bool masked>
void launch_backward(const AttentionShape& shape, const Backward<T, masked>& arguments) {
  launch_means(arguments);
  with_columns(shape.head_dim, [&]<int columns>(std::integral_constant<int, columns>) {
    const int64_t blocks = div_ceil<int64_t>(shape.sequence_length, tile) * shape.sequences *
                           div_ceil<int64_t>(shape.head_dim, columns * lanes);
    launch("attention_grad_keys", grad_keys_kernel<T, masked, columns>,
           {dim3(narrow<unsigned>(blocks * shape.kv_heads)), dim3(threads)}, arguments);
    launch("attention_grad_queries", grad_queries_kernel<T, masked, columns>,
           {dim3(narrow<unsigned>(blocks * shape.query_heads)), dim3(threads)}, arguments);
  });
}

}  // namespace

void backward(const AttentionBackward& problem) {
  const AttentionShape& shape = problem.shape;
  with_storage_type(problem.grad_qkv.dtype(), [&]<class T>(T) {
    with_mask(shape, [&]<bool masked>(std::bool_constant<masked>) {
      const Backward<T, masked> arguments{sizes_of<T>(shape, {problem.qkv.data(), problem.grad_output.data()}),
                                          QkvHeads<const T>(problem.qkv.as<T>(), shape),
                                          output_heads<const T>(problem.output.as<T>(), shape),
                                          output_heads<const T>(problem.grad_output.as<T>(), shape),
                                          QkvHeads<T>(problem.grad_qkv.as<T>(), shape),
                                          problem.log_sum_exp.as<float>(),
                                          problem.workspace.as<float>(),
                                          {document_starts_or_null(problem.document_starts)}};
      launch_backward(shape, arguments);
    });
  });
}

}  // namespace nibble::cuda::exact_attention
