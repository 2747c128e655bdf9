// Compares the FP32 model with the FP64 reference: loss, logits, and the gradient of every parameter with central
// differences of the reference.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "model/model_fixture.h"
#include "model/reference_model.h"

namespace nibble::test {
namespace {

// Returns the number of roundings on the longest way from a weight to the loss and back: sums over features, tokens and
// vocabulary.
double rounding_chain(const ModelConfig& config, int64_t tokens) {
  const int64_t attention = (config.query_heads + 2 * config.kv_heads) * config.head_dim;
  const int64_t per_block = 3 * config.hidden_size + std::max(attention, 2 * config.intermediate_size);
  return static_cast<double>(config.blocks() * per_block + config.vocab_size + tokens);
}

constexpr double epsilon = std::numeric_limits<float>::epsilon();

class Gradient : public testing::Test {
 protected:
  static constexpr StepContext context{.seed = 3, .step = 1, .micro_batch = 0};

  // Returns the largest elements of a parameter's gradient, and some others.
  static std::vector<size_t> sample(std::span<const float> gradient) {
    std::vector<size_t> order(gradient.size());
    std::iota(order.begin(), order.end(), size_t{0});
    const auto larger = [&](size_t a, size_t b) { return std::fabs(gradient[a]) > std::fabs(gradient[b]); };
    std::partial_sort(order.begin(), order.begin() + 4, order.end(), larger);
    order.resize(4);
    for (size_t i = 0; i < 8; ++i) order.push_back((i * 2654435761U + 17) % gradient.size());
    return order;
  }

  static void check(const ModelConfig& config, int64_t sequences, float loss_scale,
                    const std::vector<int32_t>& document_starts = {}) {
    TestModel test(
        config, plain(Format::f32),
        {.sequences = sequences, .sequence_length = config.sequence_length, .document_mask = !document_starts.empty()});
    test.document_starts = document_starts;
    const ParameterTable& table = test.model.parameters();
    ReferenceModel reference(config, table, {test.weights.begin(), test.weights.end()});
    reference.document_starts = document_starts;
    const size_t length = static_cast<size_t>(config.sequence_length);
    const double expected = reference.loss(test.tokens, test.targets, length);
    const double chain = rounding_chain(config, sequences * config.sequence_length);

    EXPECT_NEAR(test.forward_backward(context, loss_scale) / expected, 1.0, 1e-6);
    for (const Parameter& parameter : table.parameters()) {
      const std::span<const float> gradient = part(test.gradients, parameter);
      double largest = 0;
      for (float value : gradient) largest = std::max(largest, std::fabs(static_cast<double>(value)));
      ASSERT_GT(largest, 0) << parameter.name;
      // Errors of a chain of n independent roundings grow like sqrt(n); the factor 4 is for the worst of the sampled
      // elements.
      const double tolerance = 4 * std::sqrt(chain) * epsilon * largest;
      for (size_t element : sample(gradient)) {
        double& weight = reference.weights[parameter.offset + element];
        const double original = weight;
        // Central differences have an error of about h^2 times the third derivative, and loss * 2^-53 / h.
        const double h = 2e-5;
        weight = original + h;
        const double above = reference.loss(test.tokens, test.targets, length);
        weight = original - h;
        const double below = reference.loss(test.tokens, test.targets, length);
        weight = original;
        const double difference = loss_scale * (above - below) / (2 * h);
        EXPECT_NEAR(gradient[element], difference, tolerance) << parameter.name << " element " << element;
      }
    }
  }
};

TEST_F(Gradient, GroupedHeadsUntiedHead) {
  check(tiny_config(), 2, 1.0F);
}

TEST_F(Gradient, TiedHead) {
  ModelConfig config = tiny_config();
  config.tied_head = true;
  check(config, 1, 0.125F);
}

TEST_F(Gradient, OneHeadEachAndBlocksInAnotherOrder) {
  ModelConfig config = tiny_config();
  config.pattern = "-**-";
  config.query_heads = 2;
  config.kv_heads = 2;
  config.head_dim = 24;
  config.sequence_length = 8;
  check(config, 2, 1.0F);
}

TEST_F(Gradient, OneKeyValueHeadForAllQueries) {
  ModelConfig config = tiny_config();
  config.pattern = "*";
  config.query_heads = 6;
  config.kv_heads = 1;
  config.head_dim = 8;
  check(config, 1, 1.0F);
}

TEST_F(Gradient, NormalisedHeads) {
  ModelConfig config = tiny_config();
  config.qk_norm = true;
  check(config, 2, 1.0F);
}

TEST_F(Gradient, BiasOfQueriesKeysAndValues) {
  ModelConfig config = tiny_config();
  config.qkv_bias = true;
  check(config, 1, 0.25F);
}

TEST_F(Gradient, BiasAndNormalisedHeadsInDocuments) {
  ModelConfig config = tiny_config();
  config.pattern = "**";
  config.sequence_length = 8;
  config.qkv_bias = true;
  config.qk_norm = true;
  check(config, 2, 1.0F, {0, 0, 2, 3, 3, 3, 3, 7, 0, 0, 0, 0, 0, 5, 5, 5});
}

TEST_F(Gradient, ScaledRotaryFrequencies) {
  ModelConfig config = tiny_config();
  config.pattern = "*";
  config.rope_scaling_factor = 8;
  config.rope_original_length = 64;  // the first of six frequencies is kept, the second mixed, the others divided
  check(config, 1, 1.0F);
}

TEST_F(Gradient, DocumentsInASequence) {
  ModelConfig config = tiny_config();
  config.sequence_length = 8;
  check(config, 2, 1.0F, {0, 0, 2, 3, 3, 3, 3, 7, 0, 0, 0, 0, 0, 5, 5, 5});
}

TEST_F(Gradient, DocumentsThatCannotBeAreRefused) {
  ModelConfig config = tiny_config();
  TestModel test(config, plain(Format::f32), {.sequence_length = 16, .document_mask = true});
  test.document_starts.assign(16, 0);
  const double one_document = test.forward(context);
  for (size_t i = 6; i < 16; ++i) test.document_starts[i] = 6;
  EXPECT_NE(test.forward(context), one_document);
  for (const int32_t wrong : {5, 7, -1, 0}) {  // the start of none, a later one, none, one that has ended
    test.document_starts[8] = wrong;
    EXPECT_THROW(test.forward(context), Error) << wrong;
  }
  TestModel unprepared(config, plain(Format::f32), {.sequence_length = 16});
  unprepared.document_starts.assign(16, 0);
  EXPECT_THROW(unprepared.forward(context), Error);
}

TEST_F(Gradient, LogitsEqualTheReference) {
  ModelConfig config = tiny_config();
  config.sequence_length = 32;
  for (bool training : {true, false}) {
    TestModel test(config, plain(Format::f32), {.sequence_length = 32, .training = training});
    const ReferenceModel reference(config, test.model.parameters(), {test.weights.begin(), test.weights.end()});
    const std::vector<float> whole = test.logits(32, context);
    const ReferenceModel::Matrix expected = reference.logits(test.tokens);
    const size_t vocab = static_cast<size_t>(config.vocab_size);
    const double tolerance = 4 * std::sqrt(rounding_chain(config, 32)) * epsilon;
    for (size_t i = 0; i < whole.size(); ++i) {
      EXPECT_NEAR(whole[i], expected[i / vocab][i % vocab], tolerance * (1 + std::fabs(whole[i])));
    }
  }
}

// Gradients are added to the bound buffer: after two micro-batches it holds the sum of both.
TEST_F(Gradient, Accumulates) {
  ModelConfig config = tiny_config();
  config.tied_head = true;
  TestModel test(config, plain(Format::f32), {.sequence_length = 16});
  test.forward_backward(context);
  const std::vector<float> once = test.gradients;
  test.model.forward_backward(tensor_of(std::span(test.tokens), {1, 16}), tensor_of(std::span(test.targets), {1, 16}),
                              context, 1.0F);
  for (const Parameter& parameter : test.model.parameters().parameters()) {
    const std::span<const float> twice = part(test.gradients, parameter);
    const std::span<const float> single = part(once, parameter);
    const double tolerance = 4 * epsilon * norm(single);
    for (size_t i = 0; i < twice.size(); ++i) EXPECT_NEAR(twice[i], 2.0 * single[i], tolerance) << parameter.name;
  }
}

}  // namespace
}  // namespace nibble::test
