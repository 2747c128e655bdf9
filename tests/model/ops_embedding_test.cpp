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
std::vector<float> backward(const Values& grad_output_values, const Values& before) {
  auto ids = tokens;
  auto grad_output = stored<T>(grad_output_values);
  auto grad_weight = stored<float>(before);
  const int64_t count = static_cast<int64_t>(tokens.size());
  // Tokens keep the shape of their batch.
  embedding_backward(
      {view(ids, {2, count / 2}), view(grad_output, {count, features}), view(grad_weight, {vocab, features})});
  return grad_weight;
}

Values weights() {
  return random_values(1, vocab * features);
}
Values gradients() {
  return random_values(2, tokens.size() * features);
}
Values earlier_gradients() {
  return random_values(3, vocab * features);
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

// A repeated token's row is a sum in token order, added to the old values.
TEST(Embedding, AddsInTokenOrder) {
  auto expected = stored<float>(earlier_gradients());
  const auto grad_output = stored<float>(gradients());
  for (size_t i = 0; i < tokens.size(); ++i) {
    for (size_t j = 0; j < features; ++j) {
      expected[static_cast<size_t>(tokens[i]) * features + j] += grad_output[i * features + j];
    }
  }
  EXPECT_EQ(bytes_of(backward<float>(gradients(), earlier_gradients())), bytes_of(expected));
  EXPECT_EQ(bytes_of(backward<BFloat16>(gradients(), earlier_gradients())), bytes_of(expected));
}

TEST(Embedding, RefusesTokensOutsideTheVocabulary) {
  std::vector<float> weight(vocab * features);
  std::vector<float> output(features);
  for (int32_t bad : {-1, static_cast<int32_t>(vocab)}) {
    std::vector<int32_t> token = {bad};
    EXPECT_THROW(embedding_forward({view(token, {1}), view(weight, {vocab, features}), view(output, {1, features})}),
                 Error);
    EXPECT_THROW(embedding_backward({view(token, {1}), view(output, {1, features}), view(weight, {vocab, features})}),
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
