// The backward pass of attention on the CPU. Blocks of scores are formed again, transposed: [keys, queries], so that
// they can be left operands of the gradients of keys and values without another transposition.
#include "dist/device/thread_pool.h"
#include "model/ops/attention/attention_blocks.h"
#include "model/ops/attention/attention_lanes.h"
#include "quant/format/codec.h"

namespace nibble::attention {
namespace {

// The longest sequence whose gradients of keys and values are all summed at once.
constexpr int64_t longest_whole = 8192;

// Computes, for each query, the sum of grad_output * output over its elements, which is the mean of the gradients of
// its probabilities, weighted by the probabilities.
template <class T>
NIBBLE_VECTORIZE void mean_gradients(const Matrix<const T>& grad_output, const Matrix<const T>& output, int64_t rows,
                                     int64_t head_dim, float* means) {
  const int64_t whole = head_dim / lanes * lanes;
  for (int64_t row = 0; row < rows; ++row) {
    const T* a = grad_output.data + row * grad_output.row_stride;
    const T* b = output.data + row * output.row_stride;
    Lanes sum{};
    for (int64_t i = 0; i < whole; i += lanes) {
      Lanes left;
      Lanes right;
      load(left, a + i);
      load(right, b + i);
      sum += left * right;
    }
    for (int64_t i = whole; i < head_dim; ++i) sum[i - whole] += to_float(a[i]) * to_float(b[i]);
    means[row] = total(sum);
  }
}

template <class T>
NIBBLE_VECTORIZE void write_rows(const float* source, float scale, const Matrix<T>& output, int64_t rows,
                                 int64_t head_dim) {
  for (int64_t row = 0; row < rows; ++row) {
    write_row(source + row * head_dim, scale, output.data + row * output.row_stride, head_dim);
  }
}

// Which keys of a block the queries see.
enum class Seen : uint8_t {
  all,
  earlier,      // on the diagonal: key i is seen by the queries from i on
  own_document  // as `earlier`, at any position, but only by queries of the key's document
};

// Blocks [keys, queries].
struct SoftmaxBackwardBlock {
  const float* scores;             // unscaled
  const float* grad_scores;        // gradients of the probabilities
  const float* log_sum_exp;        // of the queries
  const float* means;              // of the queries: the mean of the gradients over the probabilities
  const int32_t* document_starts;  // of the queries' documents; like the next two, read only for Seen::own_document
  int query, key;                  // positions of the first query and the first key
  int64_t keys;
  float scale;
};

// Replaces scores by probabilities, and gradients of probabilities by gradients of scaled scores; both are zero where a
// query does not see a key.
template <Seen seen, class T>
NIBBLE_VECTORIZE void softmax_backward_block(const SoftmaxBackwardBlock& block, T* probabilities, T* grad_scores) {
  constexpr int vectors = block_size / lanes;
  for (int key = 0; key < block.keys; ++key) {
    const int64_t row = key * block_size;
    Lanes probability[vectors];
    for (int i = 0; i < vectors; ++i) {
      Lanes log_sum_exp;
      load(log_sum_exp, block.log_sum_exp + i * lanes);
      load(probability[i], block.scores + row + i * lanes);
      probability[i] = probability[i] * block.scale - log_sum_exp;
    }
    exponentiate(probability);
    for (int i = 0; i < vectors; ++i) {
      Lanes gradient;
      Lanes mean;
      load(gradient, block.grad_scores + row + i * lanes);
      load(mean, block.means + i * lanes);
      gradient = probability[i] * (gradient - mean);
      if (seen == Seen::earlier) {
        const IntLanes visible = lane_index >= key - i * static_cast<int>(lanes);
        probability[i] = visible ? probability[i] : Lanes{};
        gradient = visible ? gradient : Lanes{};
      }
      if (seen == Seen::own_document) {
        // A visible key is not before the start of the query's document and not behind the query. One unsigned
        // comparison of distances to the start tests both.
        IntLanes document_starts;
        std::memcpy(&document_starts, block.document_starts + i * lanes, sizeof document_starts);
        const IntLanes query = lane_index + (block.query + i * static_cast<int>(lanes));
        const auto visible = reinterpret_cast<UnsignedLanes>(block.key + key - document_starts) <=
                             reinterpret_cast<UnsignedLanes>(query - document_starts);
        probability[i] = visible ? probability[i] : Lanes{};
        gradient = visible ? gradient : Lanes{};
      }
      store(probabilities + row + i * lanes, probability[i]);
      store(grad_scores + row + i * lanes, gradient);
    }
  }
}

template <class T>
void softmax_backward(Seen seen, const SoftmaxBackwardBlock& block, T* probabilities, T* grad_scores) {
  if (seen == Seen::all) return softmax_backward_block<Seen::all>(block, probabilities, grad_scores);
  if (seen == Seen::earlier) return softmax_backward_block<Seen::earlier>(block, probabilities, grad_scores);
  softmax_backward_block<Seen::own_document>(block, probabilities, grad_scores);
}

// A part of the pass: the gradients of some keys, of some queries, or of both, as a sum over the pairs of blocks
// between them.
struct Part {
  int64_t sequence;
  Range heads;    // query heads of one kv head
  Range queries;  // from a multiple of block_size on
  Range keys;     // from a multiple of block_size on
  bool gives_queries, gives_keys;
};

// The operands prepared from a block of queries for its products with all blocks of keys.
template <class T>
struct QueryBlock {
  RightOperand<T> queries, queries_transposed, gradients, gradients_transposed;
  explicit QueryBlock(Pieces& pieces, int64_t floats)
      : queries(pieces.take(floats)),
        queries_transposed(pieces.take(floats)),
        gradients(pieces.take(floats)),
        gradients_transposed(pieces.take(floats)) {}
};

template <class T>
struct Workspace {
  static_assert(group_blocks == 4);
  QueryBlock<T> blocks[group_blocks];
  RightOperand<T> keys;
  float* scores;  // [block_size, block_size], like the next three
  float* grad_scores;
  T* probabilities;
  T* rounded_gradients;  // of scores
  float* log_sum_exp;    // [longest_group], like the next
  float* means;
  float* grad_queries;  // [sequence_length, but at most longest_group, head_dim]
  float* grad_keys;     // [sequence_length, but at most longest_whole, head_dim]
  float* grad_values;

  Workspace(const AttentionShape& shape, Pieces& pieces) : Workspace(shape, pieces, packed_floats(shape.head_dim)) {}

 private:
  Workspace(const AttentionShape& shape, Pieces& pieces, int64_t packed)
      : blocks{QueryBlock<T>(pieces, packed), QueryBlock<T>(pieces, packed), QueryBlock<T>(pieces, packed),
               QueryBlock<T>(pieces, packed)},
        keys(pieces.take(packed)),
        scores(pieces.take(block_size * block_size)),
        grad_scores(pieces.take(block_size * block_size)),
        probabilities(reinterpret_cast<T*>(pieces.take(block_size * block_size))),
        rounded_gradients(reinterpret_cast<T*>(pieces.take(block_size * block_size))),
        log_sum_exp(pieces.take(longest_group)),
        means(pieces.take(longest_group)),
        grad_queries(pieces.take(std::min(shape.sequence_length, longest_group) * shape.head_dim)) {
    const int64_t keys_at_once = std::min(shape.sequence_length, longest_whole);
    grad_keys = pieces.take(keys_at_once * shape.head_dim);
    grad_values = pieces.take(keys_at_once * shape.head_dim);
  }
};

template <class T>
class BackwardTask {
 public:
  BackwardTask(const AttentionBackward& problem, const Part& part, float* memory)
      : problem_(problem),
        shape_(problem.shape),
        part_(part),
        pieces_(memory),
        space_(problem.shape, pieces_),
        heads_(problem.qkv.as<T>(), problem.shape, part.sequence),
        gradients_(problem.grad_qkv.as<T>(), problem.shape, part.sequence),
        kv_head_(part.heads.begin / (problem.shape.query_heads / problem.shape.kv_heads)),
        key_(heads_.key(kv_head_)),
        value_(heads_.value(kv_head_)),
        document_starts_(problem.document_starts, problem.shape, part.sequence) {}

  void run() {
    for (int64_t head = part_.heads.begin; head < part_.heads.end; ++head) {
      for (int64_t query = part_.queries.begin; query < part_.queries.end; query += longest_group) {
        add_group(head, {query, std::min(query + longest_group, part_.queries.end)});
      }
    }
  }

 private:
  // Adds a group of queries, with all keys of the part that one of them sees. Gradients are written as soon as they are
  // complete, because writing to memory is slow and then overlaps with the computation of other blocks.
  void add_group(int64_t head, Range queries) {
    for (int64_t query = queries.begin; query < queries.end; query += block_size) {
      prepare(head, query, query - queries.begin, std::min(block_size, queries.end - query));
    }
    const bool completes_keys = part_.gives_keys && head == part_.heads.end - 1 && queries.end == part_.queries.end;
    const int64_t end = std::min(part_.keys.end, queries.end);
    for (int64_t key = part_.keys.begin; key < end; key += block_size) {
      const int64_t columns = std::min(block_size, end - key);
      const int64_t first_query = std::max(queries.begin, key);
      const bool seen = document_starts_.first_key(first_query) <= key;
      if (part_.gives_queries && seen) space_.keys.pack(key_.from_row(key), columns, shape_.head_dim);
      for (int64_t query = first_query; query < queries.end; query += block_size) {
        if (document_starts_.first_key(query) > key) break;
        const int64_t rows = std::min(block_size, queries.end - query);
        const int64_t slot = query - queries.begin;
        add_pair(query, slot, rows, key, columns, head == part_.heads.begin && query == key);
        if (part_.gives_queries && query == key) {
          write_rows(space_.grad_queries + slot * shape_.head_dim, score_scale(shape_),
                     gradients_.query(head).from_row(query), rows, shape_.head_dim);
        }
      }
      if (completes_keys) write_keys(key, columns);
    }
  }

  void write_keys(int64_t key, int64_t rows) const {
    const int64_t offset = (key - part_.keys.begin) * shape_.head_dim;
    write_rows(space_.grad_keys + offset, score_scale(shape_), gradients_.key(kv_head_).from_row(key), rows,
               shape_.head_dim);
    write_rows(space_.grad_values + offset, 1.0f, gradients_.value(kv_head_).from_row(key), rows, shape_.head_dim);
  }

  void prepare(int64_t head, int64_t query, int64_t slot, int64_t rows) {
    const Matrix<const T> queries = heads_.query(head).from_row(query);
    const Matrix<const T> grad_output =
        output_head<const T>(shape_, problem_.grad_output.as<T>(), part_.sequence, head).from_row(query);
    const Matrix<const T> output =
        output_head<const T>(shape_, problem_.output.as<T>(), part_.sequence, head).from_row(query);
    QueryBlock<T>& block = space_.blocks[slot / block_size];
    block.queries_transposed.pack(queries.transposed(), shape_.head_dim, rows);
    block.gradients_transposed.pack(grad_output.transposed(), shape_.head_dim, rows);
    if (part_.gives_keys) {
      block.queries.pack(queries, rows, shape_.head_dim);
      block.gradients.pack(grad_output, rows, shape_.head_dim);
    }
    const float* log_sum_exp = problem_.log_sum_exp.as<float>() +
                               (part_.sequence * shape_.query_heads + head) * shape_.sequence_length + query;
    std::copy_n(log_sum_exp, rows, space_.log_sum_exp + slot);
    if (document_starts_.data != nullptr) {
      std::copy_n(document_starts_.data + query, rows, query_document_starts_ + slot);
    }
    mean_gradients(grad_output, output, rows, shape_.head_dim, space_.means + slot);
  }

  void add_pair(int64_t query, int64_t slot, int64_t rows, int64_t key, int64_t columns, bool first_of_keys) {
    const QueryBlock<T>& block = space_.blocks[slot / block_size];
    block.queries_transposed.multiply(key_.from_row(key), columns, {space_.scores, block_size});
    block.gradients_transposed.multiply(value_.from_row(key), columns, {space_.grad_scores, block_size});
    const bool hides = document_starts_.hide(key, {query, query + rows});
    softmax_backward(hides ? Seen::own_document : (query == key ? Seen::earlier : Seen::all),
                     {.scores = space_.scores,
                      .grad_scores = space_.grad_scores,
                      .log_sum_exp = space_.log_sum_exp + slot,
                      .means = space_.means + slot,
                      .document_starts = query_document_starts_ + slot,
                      .query = static_cast<int>(query),
                      .key = static_cast<int>(key),
                      .keys = columns,
                      .scale = score_scale(shape_)},
                     space_.probabilities, space_.rounded_gradients);
    const Matrix<const T> probabilities{space_.probabilities, block_size, 1};
    const Matrix<const T> grad_scores{space_.rounded_gradients, block_size, 1};
    if (part_.gives_keys) {
      const int64_t offset = (key - part_.keys.begin) * shape_.head_dim;
      block.gradients.multiply(probabilities, columns, {space_.grad_values + offset, shape_.head_dim, !first_of_keys});
      block.queries.multiply(grad_scores, columns, {space_.grad_keys + offset, shape_.head_dim, !first_of_keys});
    }
    if (part_.gives_queries) {
      space_.keys.multiply(
          grad_scores.transposed(), rows,
          {space_.grad_queries + slot * shape_.head_dim, shape_.head_dim, key > document_starts_.first_key(query)});
    }
  }

  const AttentionBackward& problem_;
  const AttentionShape& shape_;
  const Part part_;
  Pieces pieces_;
  Workspace<T> space_;
  SequenceHeads<const T> heads_;
  SequenceHeads<T> gradients_;
  const int64_t kv_head_;
  Matrix<const T> key_, value_;
  const DocumentStarts document_starts_;
  int32_t query_document_starts_[longest_group];  // if there are several documents; the rest is not used
};

// The parts of a backward pass. If there are enough kv heads for the threads, a part is all of one kv head and costs
// five products for a pair of blocks. Otherwise, and for very long sequences, keys and queries are cut into separate
// groups: four products for a group of keys and three for a group of queries. Sums are taken in the same order, so the
// bits are the same.
class Parts {
 public:
  explicit Parts(const AttentionShape& shape)
      : shape_(shape),
        heads_a_kv_head_(shape.query_heads / shape.kv_heads),
        kv_heads_(shape.sequences * shape.kv_heads) {
    const int64_t threads = compute_threads();
    const int64_t whole_time = 5 * round_up(kv_heads_, threads);
    whole_ = shape.sequence_length <= longest_whole && whole_time <= 7 * kv_heads_;
    key_group_ = whole_ ? shape.sequence_length : balanced_group(kv_heads_, shape.sequence_length);
    key_parts_ = div_ceil(shape.sequence_length, key_group_) * kv_heads_;
    if (whole_) return;
    query_group_ = balanced_group(query_heads(), shape.sequence_length);
    query_parts_ = div_ceil(shape.sequence_length, query_group_) * query_heads();
  }

  int64_t count() const { return key_parts_ + query_parts_; }

  // Parts with the most work come first: keys that most queries see, queries that see most keys.
  Part at(int64_t index) const {
    const int64_t length = shape_.sequence_length;
    if (index < key_parts_) {
      const int64_t first = index / kv_heads_ * key_group_;
      const int64_t kv_head = index % kv_heads_ % shape_.kv_heads;
      return {.sequence = index % kv_heads_ / shape_.kv_heads,
              .heads = {kv_head * heads_a_kv_head_, (kv_head + 1) * heads_a_kv_head_},
              .queries = {first, length},
              .keys = {first, std::min(first + key_group_, length)},
              .gives_queries = whole_,
              .gives_keys = true};
    }
    index = count() - 1 - index;
    const int64_t first = index / query_heads() * query_group_;
    const int64_t head = index % query_heads() % shape_.query_heads;
    return {.sequence = index % query_heads() / shape_.query_heads,
            .heads = {head, head + 1},
            .queries = {first, std::min(first + query_group_, length)},
            .keys = {0, length},
            .gives_queries = true,
            .gives_keys = false};
  }

 private:
  int64_t query_heads() const { return shape_.sequences * shape_.query_heads; }

  const AttentionShape& shape_;
  int64_t heads_a_kv_head_;
  int64_t kv_heads_;  // of all sequences together
  bool whole_;
  int64_t key_group_, key_parts_;
  int64_t query_group_ = 0, query_parts_ = 0;
};

}  // namespace

int64_t backward_floats(const AttentionShape& shape) {
  Pieces pieces(nullptr);
  const Workspace<float> space(shape, pieces);
  return pieces.used();
}

template <class T>
void backward(const AttentionBackward& problem, float* workspace, int64_t per_thread) {
  const Parts parts(problem.shape);
  parallel_for(static_cast<size_t>(parts.count()), 1, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) {
      float* const memory = workspace + current_compute_thread() * per_thread;
      BackwardTask<T>(problem, parts.at(static_cast<int64_t>(index)), memory).run();
    }
  });
}

template void backward<float>(const AttentionBackward& problem, float* workspace, int64_t per_thread);
template void backward<BFloat16>(const AttentionBackward& problem, float* workspace, int64_t per_thread);

}  // namespace nibble::attention
