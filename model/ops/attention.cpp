#include "model/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "dist/thread_pool.h"
#include "dist/vectorize.h"
#include "model/ops/row_math.h"
#include "model/ops/storage.h"
#include "quant/gemm.h"

namespace nibble {
namespace {

constexpr int64_t query_block = 64;      // rows of scores formed at a time
constexpr int64_t slice_alignment = 16;  // floats

// A thread's part of the workspace. Forward uses no gradients.
struct Workspace {
  float* keys;          // [sequence_length, head_dim]
  float* values;        // [sequence_length, head_dim]
  float* queries;       // [query_block, head_dim], scaled by 1 / sqrt(head_dim)
  float* outputs;       // [query_block, head_dim]: outputs, or their gradients
  float* scores;        // [query_block, sequence_length]: scores, then probabilities
  float* grad_scores;   // [query_block, sequence_length]
  float* grad_queries;  // [query_block, head_dim]
  float* grad_keys;     // [sequence_length, head_dim]
  float* grad_values;   // [sequence_length, head_dim]

  static int64_t sequence_floats(const AttentionShape& shape) {
    return round_up(shape.sequence_length * shape.head_dim, slice_alignment);
  }
  static int64_t block_floats(const AttentionShape& shape) { return query_block * shape.head_dim; }
  static int64_t score_floats(const AttentionShape& shape) { return query_block * shape.sequence_length; }
  static int64_t floats(const AttentionShape& shape) {
    return 4 * sequence_floats(shape) + 3 * block_floats(shape) + 2 * score_floats(shape);
  }

  Workspace(const AttentionShape& shape, float* base) {
    auto take = [&](int64_t count) { return std::exchange(base, base + count); };
    keys = take(sequence_floats(shape));
    values = take(sequence_floats(shape));
    queries = take(block_floats(shape));
    outputs = take(block_floats(shape));
    scores = take(score_floats(shape));
    grad_scores = take(score_floats(shape));
    grad_queries = take(block_floats(shape));
    grad_keys = take(sequence_floats(shape));
    grad_values = take(sequence_floats(shape));
  }
};

// One head of a matrix [sequence_length, stride].
template <class T>
struct HeadView {
  T* data;
  int64_t stride;
  T* row(int64_t position) const { return data + position * stride; }
};

template <class T>
NIBBLE_VECTORIZE void read_rows(const T* __restrict source, int64_t stride, int64_t rows, int64_t head_dim, float scale,
                                float* __restrict copy) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < head_dim; ++i) copy[row * head_dim + i] = to_float(source[row * stride + i]) * scale;
  }
}

template <class T>
NIBBLE_VECTORIZE void write_row(const float* __restrict source, float scale, T* __restrict place, int64_t head_dim) {
  for (int64_t i = 0; i < head_dim; ++i) store(place[i], source[i] * scale);
}

struct RowSoftmax {
  float sum;
  float log_sum_exp;
};

// Scores [columns] of a query that sees the first `visible` of them become probabilities times the returned sum.
NIBBLE_VECTORIZE RowSoftmax softmax_row(float* scores, int64_t visible, int64_t columns) {
  const size_t count = static_cast<size_t>(visible);
  const float largest = row_maximum(scores, count);
  const float sum = replace_by_exponentials(scores, largest, count);
  for (int64_t i = visible; i < columns; ++i) scores[i] = 0.0f;
  return {sum, largest + log_f32(sum)};
}

// Scores become probabilities, and gradients of probabilities gradients of scores.
NIBBLE_VECTORIZE void softmax_backward_row(float* __restrict scores, float* __restrict grad_scores, float log_sum_exp,
                                           float mean_gradient, int64_t visible, int64_t columns) {
  for (int64_t i = 0; i < visible; ++i) {
    const float probability = exp_f32(scores[i] - log_sum_exp);
    scores[i] = probability;
    grad_scores[i] = probability * (grad_scores[i] - mean_gradient);
  }
  for (int64_t i = visible; i < columns; ++i) {
    scores[i] = 0.0f;
    grad_scores[i] = 0.0f;
  }
}

template <class T>
NIBBLE_VECTORIZE float dot(const float* a, const T* b, int64_t count) {
  LaneSum sum;
  const size_t size = static_cast<size_t>(count);
  const size_t whole = whole_lanes(size);
  for (size_t i = 0; i < whole; i += LaneSum::lanes) {
    for (size_t lane = 0; lane < LaneSum::lanes; ++lane) sum.lane[lane] += a[i + lane] * to_float(b[i + lane]);
  }
  for (size_t i = whole; i < size; ++i) sum.lane[i - whole] += a[i] * to_float(b[i]);
  return sum.total();
}

// c (+)= a b, a b^T and a^T b for row-major matrices without gaps, except that scores have sequence_length columns.
struct Products {
  int64_t head_dim;
  int64_t score_stride;

  // scores[rows, columns] = a[rows, head_dim] b[columns, head_dim]^T
  void scores(const float* a, const float* b, float* c, int64_t rows, int64_t columns) const {
    small_matmul({a, head_dim, 1, b, 1, head_dim, c, score_stride, rows, columns, head_dim, false});
  }
  // c[rows, head_dim] = scores[rows, columns] b[columns, head_dim]
  void combine(const float* score, const float* b, float* c, int64_t rows, int64_t columns) const {
    small_matmul({score, score_stride, 1, b, head_dim, 1, c, head_dim, rows, head_dim, columns, false});
  }
  // c[columns, head_dim] += scores[rows, columns]^T b[rows, head_dim]
  void add_transposed(const float* score, const float* b, float* c, int64_t rows, int64_t columns) const {
    small_matmul({score, 1, score_stride, b, head_dim, 1, c, head_dim, columns, head_dim, rows, true});
  }
};

// The heads of one sequence in qkv or its gradient.
template <class T>
struct SequenceHeads {
  T* sequence;
  const AttentionShape& shape;

  SequenceHeads(T* qkv, const AttentionShape& attention_shape, int64_t index)
      : sequence(qkv + index * attention_shape.sequence_length * attention_shape.qkv_features()),
        shape(attention_shape) {}
  HeadView<T> at(int64_t head) const { return {sequence + head * shape.head_dim, shape.qkv_features()}; }
  HeadView<T> query(int64_t head) const { return at(head); }
  HeadView<T> key(int64_t kv_head) const { return at(shape.query_heads + kv_head); }
  HeadView<T> value(int64_t kv_head) const { return at(shape.query_heads + shape.kv_heads + kv_head); }
};

float score_scale(const AttentionShape& shape) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
}

template <class T>
void read_head(const AttentionShape& shape, HeadView<const T> head, float* copy) {
  read_rows(head.data, head.stride, shape.sequence_length, shape.head_dim, 1.0f, copy);
}

template <class T>
void write_head(const AttentionShape& shape, const float* source, HeadView<T> head) {
  for (int64_t position = 0; position < shape.sequence_length; ++position) {
    write_row(source + position * shape.head_dim, 1.0f, head.row(position), shape.head_dim);
  }
}

template <class T>
struct ForwardTask {
  const AttentionForward& problem;
  const AttentionShape& shape = problem.shape;

  // One query head of one sequence.
  void run(int64_t sequence, int64_t head, const Workspace& space) const {
    const SequenceHeads<const T> heads(problem.qkv.as<T>(), shape, sequence);
    const int64_t kv_head = head / (shape.query_heads / shape.kv_heads);
    read_head(shape, heads.key(kv_head), space.keys);
    read_head(shape, heads.value(kv_head), space.values);
    const int64_t length = shape.sequence_length;
    const HeadView<T> output{
        problem.output.as<T>() + sequence * length * shape.output_features() + head * shape.head_dim,
        shape.output_features()};
    float* log_sum_exp = problem.log_sum_exp.as<float>() + (sequence * shape.query_heads + head) * length;
    for (int64_t first = 0; first < length; first += query_block) {
      queries(heads.query(head), first, std::min(query_block, length - first), output, log_sum_exp, space);
    }
  }

  void queries(HeadView<const T> query, int64_t first, int64_t rows, HeadView<T> output, float* log_sum_exp,
               const Workspace& space) const {
    const Products products{shape.head_dim, shape.sequence_length};
    const int64_t columns = first + rows;  // later keys are invisible to the whole block
    read_rows(query.row(first), query.stride, rows, shape.head_dim, score_scale(shape), space.queries);
    products.scores(space.queries, space.keys, space.scores, rows, columns);
    float inverse_sum[query_block];
    for (int64_t row = 0; row < rows; ++row) {
      const RowSoftmax softmax = softmax_row(space.scores + row * shape.sequence_length, first + row + 1, columns);
      inverse_sum[row] = 1.0f / softmax.sum;
      log_sum_exp[first + row] = softmax.log_sum_exp;
    }
    products.combine(space.scores, space.values, space.outputs, rows, columns);
    for (int64_t row = 0; row < rows; ++row) {
      write_row(space.outputs + row * shape.head_dim, inverse_sum[row], output.row(first + row), shape.head_dim);
    }
  }
};

template <class T>
struct BackwardTask {
  const AttentionBackward& problem;
  const AttentionShape& shape = problem.shape;

  // One kv head of one sequence, with its query heads in order.
  void run(int64_t sequence, int64_t kv_head, const Workspace& space) const {
    const SequenceHeads<const T> heads(problem.qkv.as<T>(), shape, sequence);
    const SequenceHeads<T> gradients(problem.grad_qkv.as<T>(), shape, sequence);
    read_head(shape, heads.key(kv_head), space.keys);
    read_head(shape, heads.value(kv_head), space.values);
    const int64_t length = shape.sequence_length;
    std::fill_n(space.grad_keys, length * shape.head_dim, 0.0f);
    std::fill_n(space.grad_values, length * shape.head_dim, 0.0f);
    const int64_t group = shape.query_heads / shape.kv_heads;
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (int64_t first = 0; first < length; first += query_block) {
        queries(sequence, head, first, std::min(query_block, length - first), heads.query(head), gradients.query(head),
                space);
      }
    }
    write_head(shape, space.grad_keys, gradients.key(kv_head));
    write_head(shape, space.grad_values, gradients.value(kv_head));
  }

  void queries(int64_t sequence, int64_t head, int64_t first, int64_t rows, HeadView<const T> query,
               HeadView<T> grad_query, const Workspace& space) const {
    const Products products{shape.head_dim, shape.sequence_length};
    const int64_t columns = first + rows;
    const int64_t stride = shape.output_features();
    const int64_t offset = (sequence * shape.sequence_length + first) * stride + head * shape.head_dim;
    const T* output = problem.output.as<T>() + offset;
    const float* log_sum_exp =
        problem.log_sum_exp.as<float>() + (sequence * shape.query_heads + head) * shape.sequence_length + first;
    read_rows(query.row(first), query.stride, rows, shape.head_dim, score_scale(shape), space.queries);
    read_rows(problem.grad_output.as<T>() + offset, stride, rows, shape.head_dim, 1.0f, space.outputs);
    products.scores(space.queries, space.keys, space.scores, rows, columns);
    products.scores(space.outputs, space.values, space.grad_scores, rows, columns);
    for (int64_t row = 0; row < rows; ++row) {
      // The mean over the row's probabilities of the gradients of the probabilities.
      const float mean = dot(space.outputs + row * shape.head_dim, output + row * stride, shape.head_dim);
      softmax_backward_row(space.scores + row * shape.sequence_length, space.grad_scores + row * shape.sequence_length,
                           log_sum_exp[row], mean, first + row + 1, columns);
    }
    products.combine(space.grad_scores, space.keys, space.grad_queries, rows, columns);
    for (int64_t row = 0; row < rows; ++row) {
      write_row(space.grad_queries + row * shape.head_dim, score_scale(shape), grad_query.row(first + row),
                shape.head_dim);
    }
    products.add_transposed(space.grad_scores, space.queries, space.grad_keys, rows, columns);
    products.add_transposed(space.scores, space.outputs, space.grad_values, rows, columns);
  }
};

// Runs a task for every (sequence, head).
template <class Task>
void run_tasks(const Task& task, int64_t heads, const Tensor& workspace) {
  const AttentionShape& shape = task.shape;
  const int64_t per_thread = Workspace::floats(shape);
  float* base = workspace.as<float>();
  parallel_for(static_cast<size_t>(shape.sequences * heads), 1, [&](size_t begin, size_t end) {
    const Workspace space(shape, base + current_compute_thread() * per_thread);
    for (int64_t index = static_cast<int64_t>(begin); index < static_cast<int64_t>(end); ++index) {
      task.run(index / heads, index % heads, space);
    }
  });
}

void check_shape(const AttentionShape& shape, const Tensor& workspace) {
  NIBBLE_CHECK(shape.sequences >= 0 && shape.sequence_length > 0 && shape.head_dim > 0, "attention shape");
  NIBBLE_CHECK(shape.kv_heads > 0 && shape.query_heads % shape.kv_heads == 0, "kv heads divide query heads");
  NIBBLE_CHECK(
      workspace.dtype() == DType::f32 && workspace.elements() >= attention_workspace_floats(shape, compute_threads()),
      "attention workspace is too small");
}

}  // namespace

int64_t attention_workspace_floats(const AttentionShape& shape, int threads) {
  return threads * Workspace::floats(shape);
}

namespace cpu {

static void attention_forward(const AttentionForward& problem) {
  const AttentionShape& shape = problem.shape;
  const DType dtype = problem.output.dtype();
  check_shape(shape, problem.workspace);
  check_matrix(problem.qkv, dtype, shape.tokens(), shape.qkv_features());
  check_matrix(problem.output, dtype, shape.tokens(), shape.output_features());
  check_vector(problem.log_sum_exp, DType::f32, shape.tokens() * shape.query_heads);
  with_storage_type(dtype,
                    [&]<class T>(T) { run_tasks(ForwardTask<T>{problem}, shape.query_heads, problem.workspace); });
}

static void attention_backward(const AttentionBackward& problem) {
  const AttentionShape& shape = problem.shape;
  const DType dtype = problem.grad_qkv.dtype();
  check_shape(shape, problem.workspace);
  check_matrix(problem.grad_output, dtype, shape.tokens(), shape.output_features());
  check_matrix(problem.qkv, dtype, shape.tokens(), shape.qkv_features());
  check_matrix(problem.output, dtype, shape.tokens(), shape.output_features());
  check_matrix(problem.grad_qkv, dtype, shape.tokens(), shape.qkv_features());
  check_vector(problem.log_sum_exp, DType::f32, shape.tokens() * shape.query_heads);
  with_storage_type(dtype, [&]<class T>(T) { run_tasks(BackwardTask<T>{problem}, shape.kv_heads, problem.workspace); });
}

}  // namespace cpu

void attention_forward(const AttentionForward& problem) {
  NIBBLE_DISPATCH(problem.output.device(), attention_forward, problem);
}

void attention_backward(const AttentionBackward& problem) {
  NIBBLE_DISPATCH(problem.grad_qkv.device(), attention_backward, problem);
}

}  // namespace nibble
