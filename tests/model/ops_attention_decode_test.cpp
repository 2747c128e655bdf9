// Attention over a cache of keys and values has the bits of attention over the whole sequence, for every split of it.
#include <gtest/gtest.h>

#include <vector>

#include "dist/device/thread_pool.h"
#include "model/attention_fixture.h"
#include "model/ops/columns.h"

namespace nibble::test {
namespace {

template <class T>
struct Whole {
  AttentionShape shape;
  std::vector<T> qkv, cache;
  Result<T> result;

  explicit Whole(const Problem& problem) : shape(problem.shape()), qkv(stored<T>(problem.qkv())) {
    cache.resize(static_cast<size_t>(shape.tokens() * 2 * shape.kv_heads * shape.head_dim));
    result = run<T>(problem, problem.qkv());
    copy_columns(rows(0, shape.sequence_length), shape.query_heads * shape.head_dim, cache_view());
  }
  Tensor rows(int64_t begin, int64_t end) {
    return view(qkv, {shape.tokens(), shape.qkv_features()}).slice(begin, end);
  }
  Tensor cache_view() { return view(cache, {shape.tokens(), 2 * shape.kv_heads * shape.head_dim}); }
};

// Computes the sequence in parts of so many tokens, the last as long as is left.
template <class T>
std::string in_parts(Whole<T>& whole, int64_t part) {
  std::vector<T> output(whole.result.output.size());
  const AttentionShape& shape = whole.shape;
  for (int64_t begin = 0; begin < shape.sequence_length; begin += part) {
    const int64_t end = std::min(begin + part, shape.sequence_length);
    AttentionShape of_part = shape;
    of_part.sequence_length = end - begin;
    const int64_t floats = cpu::attention_workspace_floats(of_part, compute_threads());
    std::vector<float> workspace(static_cast<size_t>(floats), std::nanf(""));
    std::vector<float> log_sum_exp(static_cast<size_t>(of_part.tokens() * shape.query_heads));
    // Keys and values of later tokens are in the cache, but have no influence.
    attention_forward({.shape = of_part,
                       .qkv = whole.rows(begin, end),
                       .output = view(output, {shape.tokens(), shape.output_features()}).slice(begin, end),
                       .log_sum_exp = view(log_sum_exp, {of_part.tokens() * shape.query_heads}),
                       .workspace = view(workspace, {floats}),
                       .cache = whole.cache_view(),
                       .first = begin});
  }
  return bytes_of(output);
}

template <class T>
void expect_same_for_every_split(const Problem& problem) {
  Whole<T> whole(problem);
  for (const int64_t part : {1, 3, 64, 67, 128, 1000}) {
    EXPECT_EQ(in_parts(whole, part), bytes_of(whole.result.output)) << part << " of " << whole.shape.sequence_length;
  }
}

TEST(AttentionDecode, EverySplitHasTheBitsOfTheWhole) {
  for (const int threads : {1, 3}) {
    set_compute_threads(threads);
    for (const Problem& problem : problems()) {
      if (problem.attention.sequences != 1 || !problem.attention.document_starts.empty()) continue;
      expect_same_for_every_split<float>(problem);
      expect_same_for_every_split<BFloat16>(problem);
    }
  }
  set_compute_threads(1);
}

TEST(AttentionDecode, APositionThatIsWrongIsSeen) {
  Whole<float> whole(Problem{{1, 65, 3, 1, 8}});
  std::swap(whole.cache[0], whole.cache[17]);
  EXPECT_NE(in_parts(whole, 5), bytes_of(whole.result.output));
}

TEST(AttentionDecode, RefusesACacheThatIsTooShort) {
  Whole<float> whole(Problem{{1, 65, 3, 1, 8}});
  AttentionForward problem{.shape = whole.shape,
                           .qkv = whole.rows(0, 65),
                           .output = view(whole.result.output, {65, whole.shape.output_features()}),
                           .log_sum_exp = view(whole.result.log_sum_exp, {3 * 65}),
                           .workspace = Tensor(),
                           .cache = whole.cache_view(),
                           .first = 1};
  EXPECT_THROW(attention_forward(problem), Error);
  problem.cache = Tensor();
  EXPECT_THROW(attention_forward(problem), Error) << "a first token needs a cache";
}

}  // namespace
}  // namespace nibble::test
