// The forward pass of attention on the CPU: a running maximum and sum of each query's scores, as in FlashAttention.
#include <limits>

#include "dist/device/thread_pool.h"
#include "model/ops/attention/attention_blocks.h"
#include "model/ops/attention/attention_lanes.h"
#include "model/ops/row/vector_math.h"

namespace nibble::attention {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

// The state of some queries after some blocks of keys.
struct QueryState {
  float* largest;  // [rows]: scaled scores
  float* sums;     // [rows, lanes]: sums of exp(score - largest)
  float* outputs;  // [rows, head_dim]: sums of the values times these exponentials
};

struct SoftmaxBlock {
  QueryState state;
  float* scores;  // [block_size, block_size], unscaled; overwritten
  int64_t rows, columns;
  int64_t head_dim;
  float scale;
  int64_t ahead;                   // of the first row's position beyond `key`: row i sees the columns up to ahead + i
  bool first;                      // the state is not set yet
  const int32_t* document_starts;  // with a mask: starts of the rows' documents
  int64_t key;                     // position of the first column
};

constexpr int block_vectors = block_size / lanes;

// Scales the scores and sets those of keys that a query does not see to -infinity: keys from `visible` on, and, with a
// mask, keys before `hidden`. Returns the largest of the row.
template <bool masked>
NIBBLE_INLINE float scale_row(float* scores, float scale, int visible, int hidden) {
  Lanes highest = Lanes{} - infinity;
  for (int i = 0; i < block_vectors; ++i) {
    Lanes score;
    load(score, scores + i * lanes);
    score = score * scale;
    const int column = i * static_cast<int>(lanes);
    if (masked) {
      // A visible key is in [hidden, visible). One unsigned comparison tests both bounds.
      const auto distance = reinterpret_cast<UnsignedLanes>(lane_index + (column - hidden));
      score = distance < static_cast<uint32_t>(std::max(visible - hidden, 0)) ? score : Lanes{} - infinity;
    } else if (visible < block_size) {
      score = lane_index < visible - column ? score : Lanes{} - infinity;
    }
    store(scores + i * lanes, score);
    keep_larger(highest, score);
  }
  return largest(highest);
}

// Replaces scores by probabilities times the final sum, as far as the maximum is known, and brings the state to the new
// maximum, except for the outputs of this block. With a mask, a row may have seen no key yet; its sum is then zero.
template <bool masked, class T>
NIBBLE_VECTORIZE void softmax_block(const SoftmaxBlock& block, T* probabilities) {
  const QueryState state = block.state;
  float largest_here[block_size] = {};
  float factors[block_size];
  for (int row = 0; row < block.rows; ++row) {
    const int visible = static_cast<int>(std::min(block.columns, block.ahead + row + 1));
    const int hidden = masked ? block.document_starts[row] - static_cast<int>(block.key) : 0;
    largest_here[row] = scale_row<masked>(block.scores + row * block_size, block.scale, visible, hidden);
  }
  // A row that has seen no key has a finite maximum, so that differences to it are numbers and not NaN.
  constexpr float none = masked ? std::numeric_limits<float>::max() : infinity;
  for (int row = 0; row < block.rows; row += lanes) {
    Lanes here;
    Lanes now = Lanes{} - none;
    Lanes factor[1];
    load(here, largest_here + row);
    if (!block.first) load(now, state.largest + row);
    factor[0] = now;
    keep_larger(now, here);
    factor[0] = factor[0] - now;
    exponentiate(factor);
    store(state.largest + row, now);
    store(factors + row, factor[0]);
  }
  for (int row = 0; row < block.rows; ++row) {
    Lanes score[block_vectors];
    for (int i = 0; i < block_vectors; ++i) {
      load(score[i], block.scores + row * block_size + i * lanes);
      score[i] = score[i] - state.largest[row];
    }
    exponentiate(score);
    Lanes sum{};
    if (!block.first) {
      load(sum, state.sums + row * lanes);
      sum = sum * factors[row];
    }
    for (int i = 0; i < block_vectors; ++i) {
      store(probabilities + row * block_size + i * lanes, score[i]);
      sum += score[i];
    }
    store(state.sums + row * lanes, sum);
  }
  if (block.first) return;
  for (int row = 0; row < block.rows; ++row) {
    const float factor = factors[row];
    if (factor == 1.0f) continue;
    float* outputs = state.outputs + row * block.head_dim;
    for (int64_t i = 0; i < block.head_dim; ++i) outputs[i] *= factor;
  }
}

struct FinishedRows {
  QueryState state;
  float* log_sum_exp;
  int64_t rows, head_dim;
};

template <class T>
NIBBLE_VECTORIZE void finish_rows(const FinishedRows& finished, T* output, int64_t stride) {
  const QueryState state = finished.state;
  for (int64_t row = 0; row < finished.rows; ++row, output += stride) {
    Lanes sums;
    load(sums, state.sums + row * lanes);
    const float sum = total(sums);
    finished.log_sum_exp[row] = state.largest[row] + log_f32(sum);
    write_row(state.outputs + row * finished.head_dim, 1.0f / sum, output, finished.head_dim);
  }
}

struct Workspace {
  float* keys;           // packed block, transposed
  float* values;         // packed block
  float* scores;         // [block_size, block_size]
  float* probabilities;  // [block_size, block_size] in the storage type
  QueryState state;      // of longest_group queries
  int64_t floats;

  Workspace(const AttentionShape& shape, float* base) {
    Pieces pieces(base);
    keys = pieces.take(packed_floats(shape.head_dim));
    values = pieces.take(packed_floats(shape.head_dim));
    scores = pieces.take(block_size * block_size);
    probabilities = pieces.take(block_size * block_size);
    state.largest = pieces.take(longest_group);
    state.sums = pieces.take(longest_group * lanes);
    state.outputs = pieces.take(std::min(shape.sequence_length, longest_group) * shape.head_dim);
    floats = pieces.used();
  }
};

// Computes some consecutive queries of one head.
template <class T>
class ForwardTask {
 public:
  ForwardTask(const AttentionForward& problem, int64_t sequence, int64_t head, float* memory)
      : shape_(problem.shape),
        first_(problem.first),
        space_(problem.shape, memory),
        keys_(space_.keys),
        values_(space_.values),
        output_(output_head(shape_, problem.output.as<T>(), sequence, head)),
        log_sum_exp_(problem.log_sum_exp.as<float>() + (sequence * shape_.query_heads + head) * shape_.sequence_length),
        document_starts_(problem.document_starts, shape_, sequence) {
    const SequenceHeads<const T> heads(problem.qkv.as<T>(), shape_, sequence);
    const int64_t kv_head = head / (shape_.query_heads / shape_.kv_heads);
    query_ = heads.query(head);
    key_ = heads.key(kv_head);
    value_ = heads.value(kv_head);
    if (problem.cache.empty()) return;
    key_ = {problem.cache.as<T>() + kv_head * shape_.head_dim, problem.cache.cols(), 1};
    value_ = {key_.data + shape_.kv_heads * shape_.head_dim, problem.cache.cols(), 1};
  }

  // Runs at most longest_group queries, positions in the sequence. Those of several groups without a cache begin at
  // multiples of block_size.
  void run(Range queries) {
    for (int64_t key = document_starts_.first_key(queries.begin); key < queries.end; key += block_size) {
      const int64_t columns = std::min(block_size, queries.end - key);
      keys_.pack(key_.from_row(key).transposed(), shape_.head_dim, columns);
      values_.pack(value_.from_row(key), columns, shape_.head_dim);
      // The first block of queries of which one sees this key.
      const int64_t skipped = std::max(int64_t{0}, key - queries.begin) / block_size * block_size;
      for (int64_t query = queries.begin + skipped; query < queries.end; query += block_size) {
        if (document_starts_.first_key(query) > key) break;
        add_block(query, std::min(block_size, queries.end - query), key, columns, query - queries.begin);
      }
    }
    const int64_t row = queries.begin - first_;
    const Matrix<T> output = output_.from_row(row);
    finish_rows({space_.state, log_sum_exp_ + row, queries.size(), shape_.head_dim}, output.data, output.row_stride);
  }

 private:
  void add_block(int64_t query, int64_t rows, int64_t key, int64_t columns, int64_t slot) {
    const QueryState state{space_.state.largest + slot, space_.state.sums + slot * lanes,
                           space_.state.outputs + slot * shape_.head_dim};
    T* probabilities = reinterpret_cast<T*>(space_.probabilities);
    keys_.multiply(query_.from_row(query - first_), rows, {space_.scores, block_size});
    const bool first = key == document_starts_.first_key(query);
    const SoftmaxBlock block{.state = state,
                             .scores = space_.scores,
                             .rows = rows,
                             .columns = columns,
                             .head_dim = shape_.head_dim,
                             .scale = score_scale(shape_),
                             .ahead = query - key,
                             .first = first,
                             .document_starts = document_starts_.data + query,
                             .key = key};
    if (document_starts_.hide(key, {query, query + rows})) {
      softmax_block<true>(block, probabilities);
    } else {
      softmax_block<false>(block, probabilities);
    }
    values_.multiply({probabilities, block_size, 1}, rows, {state.outputs, shape_.head_dim, !first});
  }

  const AttentionShape& shape_;
  int64_t first_;  // position of the first row of queries and outputs
  Workspace space_;
  RightOperand<T> keys_, values_;
  Matrix<const T> query_{}, key_{}, value_{};
  Matrix<T> output_;
  float* log_sum_exp_;
  DocumentStarts document_starts_;
};

}  // namespace

int64_t forward_floats(const AttentionShape& shape) {
  return Workspace(shape, nullptr).floats;
}

// A task is a group of queries of one head. Late groups, which see the most keys, go first; groups are smaller if there
// are too few for the threads. Queries do not depend on each other, so neither changes a bit.
template <class T>
void forward(const AttentionForward& problem, float* workspace, int64_t per_thread) {
  const AttentionShape& shape = problem.shape;
  const int64_t heads = shape.sequences * shape.query_heads;
  const int64_t group = balanced_group(heads, shape.sequence_length);
  const int64_t groups = div_ceil(shape.sequence_length, group);
  parallel_for(static_cast<size_t>(groups * heads), 1, [&](size_t begin, size_t end) {
    for (int64_t index = static_cast<int64_t>(begin); index < static_cast<int64_t>(end); ++index) {
      const int64_t first = (groups - 1 - index / heads) * group;
      const int64_t head = index % heads;
      ForwardTask<T> task(problem, head / shape.query_heads, head % shape.query_heads,
                          workspace + current_compute_thread() * per_thread);
      task.run({problem.first + first, problem.first + std::min(first + group, shape.sequence_length)});
    }
  });
}

template void forward<float>(const AttentionForward& problem, float* workspace, int64_t per_thread);
template void forward<BFloat16>(const AttentionForward& problem, float* workspace, int64_t per_thread);

}  // namespace nibble::attention
