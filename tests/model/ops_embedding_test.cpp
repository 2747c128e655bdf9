// Compares token embedding with FP64, with repeated tokens.
#include "model/ops/embedding.h"

#include "model/ops_support.h"

namespace nibble {
namespace {

using namespace test;

constexpr size_t vocab = 11;
constexpr size_t features = 149;  // several ranges of columns and a rest
const std::vector<int32_t> tokens = {3, 0, 3, 10, 7, 3, 3, 0, 10, 3};

template <class T>
std::vector<T> forward(const Values& weight_values) {
  auto ids = tokens;
  auto weight = stored<T>(weight_values);
  std::vector<T> output(tokens.size() * features);
  const int64_t count = static_cast<int64_t>(tokens.size());
  embedding_forward({view(ids, {count}), view(weight, {vocab, features}), view(output, {count, features})});
  return output;
}

template <class T>
std::vector<float> backward(const Values& grad_output_values, const Values& before, bool continues = false,
                            std::vector<int32_t> ids = tokens) {
  // Old contents of the workspace must not matter.
  std::vector<int32_t> workspace(2 * ids.size(), -1);
  auto grad_output = stored<T>(grad_output_values);
  auto grad_weight = stored<float>(before);
  const int64_t count = static_cast<int64_t>(ids.size());
  // Tokens keep the shape of their batch.
  embedding_backward({view(ids, {2, count / 2}), view(grad_output, {count, features}),
                      view(grad_weight, {static_cast<int64_t>(grad_weight.size() / features), features}),
                      view(workspace, {2, count}), continues});
  return grad_weight;
}

Values weights() {
  return random_values(1, vocab * features);
}
Values gradients() {
  return random_values(2, tokens.size() * features);
}
// They are so large that the order of additions shows.
Values earlier_gradients() {
  return random_values(3, vocab * features, 0x1p18);
}

TEST(Embedding, CopiesRows) {
  const Values expected = reference::embedding(tokens, weights(), features);
  EXPECT_EQ(widened(forward<float>(weights())), expected);
  EXPECT_EQ(widened(forward<BFloat16>(weights())), expected);
}

TEST(Embedding, GradientIsTheDerivative) {
  const Values differences = finite_differences(weights(), [](const Values& weight) {
    return inner_product(gradients(), reference::embedding(tokens, weight, features));
  });
  expect_near(reference::embedding_backward(tokens, gradients(), vocab), differences, 1e-7, "reference");
  expect_near(widened(backward<float>(gradients(), Values(vocab * features))), differences,
              static_cast<double>(tokens.size() * tokens.size()) * unit_roundoff + 1e-7, "FP32");
}

// Adds each row's gradients in token order to `rows`.
void add_in_order(const std::vector<int32_t>& ids, const std::vector<float>& grad_output, std::vector<float>& rows) {
  for (size_t i = 0; i < ids.size(); ++i) {
    for (size_t j = 0; j < features; ++j) {
      rows[static_cast<size_t>(ids[i]) * features + j] += grad_output[i * features + j];
    }
  }
}

// A repeated token's row is a sum in token order, which is formed from zero and then added to the old values, or goes
// on from them.
TEST(Embedding, SumsInTokenOrder) {
  const auto grad_output = stored<float>(gradients());
  const auto before = stored<float>(earlier_gradients());
  auto added = before;
  std::vector<float> sum(vocab * features);
  add_in_order(tokens, grad_output, sum);
  for (size_t i = 0; i < sum.size(); ++i) added[i] += sum[i];
  auto continued = before;
  add_in_order(tokens, grad_output, continued);
  EXPECT_TRUE(bytes_of(added) != bytes_of(continued));
  EXPECT_TRUE(bytes_of(backward<float>(gradients(), earlier_gradients())) == bytes_of(added));
  EXPECT_TRUE(bytes_of(backward<BFloat16>(gradients(), earlier_gradients())) == bytes_of(added));
  EXPECT_TRUE(bytes_of(backward<float>(gradients(), earlier_gradients(), /*continues=*/true)) == bytes_of(continued));
  EXPECT_TRUE(bytes_of(backward<BFloat16>(gradients(), earlier_gradients(), /*continues=*/true)) ==
              bytes_of(continued));
}

// Numbers of several digits for the sort, more positions than one task takes, and a word that fills most of them.
TEST(Embedding, SumsManyTokensOfALargeVocabulary) {
  constexpr size_t large_vocab = 5000;
  std::vector<int32_t> ids(300, 4999);
  for (size_t i = 0; i < ids.size(); i += 3) ids[i] = static_cast<int32_t>(i * 7919 % large_vocab);
  const Values values = random_values(4, ids.size() * features);
  std::vector<float> expected(large_vocab * features);
  add_in_order(ids, stored<float>(values), expected);
  for (const bool continues : {false, true}) {
    EXPECT_TRUE(bytes_of(backward<BFloat16>(values, Values(large_vocab * features), continues, ids)) ==
                bytes_of(expected));
  }
}

TEST(Embedding, RefusesTokensOutsideTheVocabulary) {
  std::vector<float> weight(vocab * features);
  std::vector<float> output(features);
  std::vector<int32_t> workspace(2);
  for (int32_t bad : {-1, static_cast<int32_t>(vocab)}) {
    std::vector<int32_t> token = {bad};
    EXPECT_THROW(embedding_forward({view(token, {1}), view(weight, {vocab, features}), view(output, {1, features})}),
                 Error);
    EXPECT_THROW(embedding_backward({view(token, {1}), view(output, {1, features}), view(weight, {vocab, features}),
                                     view(workspace, {2, 1})}),
                 Error);
  }
}

TEST(Embedding, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    return bytes_of(forward<BFloat16>(weights())) + bytes_of(backward<BFloat16>(gradients(), earlier_gradients()));
  });
}

}  // namespace
}  // namespace nibble
