#include "model/ops/embedding.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <utility>

#include "dist/base/vectorize.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "model/ops/row/storage.h"

namespace nibble {
namespace {

// Where the tokens of one word stand, and some columns of their gradients.
template <class T>
struct Occurrences {
  const int32_t* positions;
  size_t count;
  const T* grad_output;  // of position 0
  size_t features;       // between positions
};

// sum[c] += the gradients of the occurrences, in order.
template <class T>
NIBBLE_VECTORIZE void add_occurrences(const Occurrences<T>& word, size_t columns, float* __restrict sum) {
  for (size_t i = 0; i < word.count; ++i) {
    const T* const row = word.grad_output + static_cast<size_t>(word.positions[i]) * word.features;
    for (size_t c = 0; c < columns; ++c) sum[c] += to_float(row[c]);
  }
}

NIBBLE_VECTORIZE void add_row(const float* __restrict row, size_t columns, float* __restrict sum) {
  for (size_t c = 0; c < columns; ++c) sum[c] += row[c];
}

// Returns the positions 0 .. count-1 ordered by token, those of one token ascending, in one half of `memory` [2,
// count]: a counting sort for each digit, from the lowest.
const int32_t* sort_positions(const int32_t* tokens, size_t count, int64_t vocab, int32_t* memory) {
  constexpr int digit_bits = 11;
  constexpr uint32_t digits = 1U << digit_bits;
  int32_t* from = memory;
  int32_t* to = memory + count;
  std::iota(from, from + count, 0);
  for (int shift = 0; (vocab - 1) >> shift > 0; shift += digit_bits) {
    const auto digit = [=](int32_t position) {
      return static_cast<uint32_t>(tokens[position]) >> shift & (digits - 1);
    };
    std::array<int32_t, digits> next{};  // place of the next position with this digit
    for (size_t i = 0; i < count; ++i) ++next[digit(from[i])];
    std::exclusive_scan(next.begin(), next.end(), next.begin(), 0);
    for (size_t i = 0; i < count; ++i) to[next[digit(from[i])]++] = from[i];
    std::swap(from, to);
  }
  return from;
}

void check_tokens(const Tensor& tokens, int64_t vocab) {
  const int32_t* ids = tokens.as<int32_t>();
  for (int64_t i = 0; i < tokens.elements(); ++i) {
    NIBBLE_CHECK(0 <= ids[i] && ids[i] < vocab, "token outside the vocabulary");
  }
}

}  // namespace

namespace cpu {

void embedding_forward(const EmbeddingForward& problem) {
  const int64_t count = problem.tokens.elements();
  check_tokens(problem.tokens, problem.weight.size(0));
  const int32_t* tokens = problem.tokens.as<int32_t>();
  const std::byte* weight = static_cast<const std::byte*>(problem.weight.data());
  std::byte* output = static_cast<std::byte*>(problem.output.data());
  const size_t row_bytes = static_cast<size_t>(problem.weight.cols()) * size_of(problem.weight.dtype());
  constexpr size_t token_grain = 64;
  parallel_for(static_cast<size_t>(count), token_grain, [=](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      std::memcpy(output + i * row_bytes, weight + static_cast<size_t>(tokens[i]) * row_bytes, row_bytes);
    }
  });
}

// A task owns some columns of the words whose first positions lie in a range of the ordered positions, so the sum of a
// row does not depend on the number of threads.
void embedding_backward(const EmbeddingBackward& problem) {
  const auto count = static_cast<size_t>(problem.tokens.elements());
  const int64_t vocab = problem.grad_weight.size(0);
  check_tokens(problem.tokens, vocab);
  const int32_t* tokens = problem.tokens.as<int32_t>();
  const int32_t* positions = sort_positions(tokens, count, vocab, problem.workspace.as<int32_t>());
  const auto begins_word = [=](size_t i) { return i == 0 || tokens[positions[i - 1]] != tokens[positions[i]]; };
  float* const grad_weight = problem.grad_weight.as<float>();
  const auto features = static_cast<size_t>(problem.grad_weight.cols());
  constexpr size_t most_columns = 256;  // whose sums stay in the first cache
  constexpr size_t range = 64;          // positions
  const size_t slices = div_ceil(features, most_columns);
  const bool continues = problem.continues;
  with_storage_type(problem.grad_output.dtype(), [&]<class T>(T) {
    const T* const grad_output = problem.grad_output.as<T>();
    parallel_for(div_ceil(count, range) * slices, 1, [=](size_t task, size_t) {
      const size_t column = task % slices * most_columns;
      const size_t columns = std::min(most_columns, features - column);
      const size_t first = task / slices * range;
      for (size_t i = first; i < std::min(count, first + range); ++i) {
        if (!begins_word(i)) continue;
        size_t end = i + 1;
        while (end < count && !begins_word(end)) ++end;
        float* const row = grad_weight + static_cast<size_t>(tokens[positions[i]]) * features + column;
        const Occurrences<T> word{positions + i, end - i, grad_output + column, features};
        if (continues) {
          add_occurrences(word, columns, row);
        } else {
          float sum[most_columns] = {};
          add_occurrences(word, columns, sum);
          add_row(sum, columns, row);
        }
      }
    });
  });
}

}  // namespace cpu

void embedding_forward(const EmbeddingForward& problem) {
  const ProfileScope scope(OperatorFamily::embedding, "embedding_forward");
  NIBBLE_CHECK(problem.weight.rank() == 2, "embedding weight is [vocab, features]");
  check_matrix(problem.output, problem.weight.dtype(), problem.tokens.elements(), problem.weight.cols());
  NIBBLE_DISPATCH(problem.output.device(), embedding_forward, problem);
}

void embedding_backward(const EmbeddingBackward& problem) {
  const ProfileScope scope(OperatorFamily::embedding, "embedding_backward");
  NIBBLE_CHECK(problem.grad_weight.rank() == 2 && problem.grad_weight.dtype() == DType::f32,
               "embedding gradient is f32 [vocab, features]");
  check_matrix(problem.grad_output, problem.grad_output.dtype(), problem.tokens.elements(), problem.grad_weight.cols());
  check_vector(problem.workspace, DType::i32, 2 * problem.tokens.elements());
  NIBBLE_DISPATCH(problem.grad_weight.device(), embedding_backward, problem);
}

}  // namespace nibble
