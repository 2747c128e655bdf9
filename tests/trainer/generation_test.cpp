#include "trainer/inference/generation.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <map>

#include "quant/format/codec.h"

namespace nibble {
namespace {

constexpr std::array<float, 4> logits = {0.0F, 2.0F, 1.0F, -1.0F};

TEST(Generation, WithoutAPromptADocumentBegins) {
  const auto loaded = Tokenizer::load(NIBBLE_SOURCE_DIR "/data/sample/tokenizer.model");
  const Tokenizer& tokenizer = *loaded;
  EXPECT_EQ(prompt_tokens(tokenizer, ""), (std::vector<int32_t>{tokenizer.eos_id()}));
  EXPECT_EQ(prompt_tokens(tokenizer, "Fellow"), tokenizer.encode("Fellow"));
}

TEST(Generation, TemperatureZeroTakesTheLikeliest) {
  for (uint64_t position = 0; position < 50; ++position) {
    EXPECT_EQ(sample_token(logits.data(), 4, position, {.temperature = 0, .top_p = 1, .seed = position}), 1);
  }
}

TEST(Generation, FrequenciesFollowTheProbabilities) {
  constexpr int draws = 20000;
  std::map<int32_t, int> count;
  for (uint64_t position = 0; position < draws; ++position) {
    ++count[sample_token(logits.data(), 4, position, {.temperature = 0.7, .top_p = 1, .seed = 3})];
  }
  double total = 0;
  for (const float logit : logits) total += std::exp(logit / 0.7);
  for (int32_t token = 0; token < 4; ++token) {
    const double probability = std::exp(logits.at(static_cast<size_t>(token)) / 0.7) / total;
    // The tolerance is five standard deviations of a binomial count.
    EXPECT_NEAR(count[token], draws * probability, 5 * std::sqrt(draws * probability * (1 - probability)));
  }
}

TEST(Generation, TopPDropsTheTail) {
  // The probabilities are 0.644, 0.237, 0.087 and 0.032, so 0.8 needs the first two.
  for (uint64_t position = 0; position < 2000; ++position) {
    const int32_t token = sample_token(logits.data(), 4, position, {.temperature = 1, .top_p = 0.8, .seed = 1});
    EXPECT_TRUE(token == 1 || token == 2);
  }
}

TEST(Generation, SameSeedSameToken) {
  for (uint64_t position = 0; position < 100; ++position) {
    const SamplingOptions options{.temperature = 1, .top_p = 1, .seed = 9};
    EXPECT_EQ(sample_token(logits.data(), 4, position, options), sample_token(logits.data(), 4, position, options));
  }
}

// A window is a function of the text's length, ends with the text, and is at least half as long as it may be.
TEST(Generation, AWindowBeginsAnewWhenItIsFull) {
  EXPECT_EQ(window_begin(16, 16), 0U);
  EXPECT_EQ(window_begin(17, 16), 8U);
  EXPECT_EQ(window_begin(24, 16), 8U);
  EXPECT_EQ(window_begin(25, 16), 16U);
  for (size_t tokens = 17; tokens < 200; ++tokens) {
    const size_t seen = tokens - window_begin(tokens, 16);
    EXPECT_TRUE(9 <= seen && seen <= 16) << tokens;
  }
}

ModelConfig tiny_config() {
  ModelConfig config;
  config.pattern = "*-";
  config.vocab_size = 48;
  config.hidden_size = 32;
  config.query_heads = 2;
  config.kv_heads = 1;
  config.head_dim = 16;
  config.intermediate_size = 64;
  config.sequence_length = 32;
  config.init_std = 0.2;
  return config;
}

// The text is that of a slow writer, which takes in the whole window for each token.
TEST(Generation, ACacheChangesNoToken) {
  const Recipe recipe{.name = "nvfp4", .linear = plain_recipe(Format::nvfp4)};
  LanguageModel model(tiny_config(), recipe, {.sequence_length = 32, .training = false, .decoding = true});
  std::vector<float> values(model.parameters().flat_size());
  initialize(model.parameters(), 11, 0, values.size(), values.data());
  std::vector<BFloat16> weights;
  for (const float value : values) weights.push_back(bf16_nearest(value));
  model.bind(tensor_of(std::span(weights), {static_cast<int64_t>(weights.size())}), {});
  const SamplingOptions options{.temperature = 1, .top_p = 1, .seed = 5};
  constexpr int64_t vocabulary = 40;  // the model's is padded

  std::vector<int32_t> slow = {3, 1, 4};
  TextWriter writer(model, slow, vocabulary, options);
  const auto cache = model.make_cache();
  for (int i = 0; i < 100; ++i) {
    const size_t begin = window_begin(slow.size(), 32);
    const auto window = std::span(slow).subspan(begin);
    const auto count = static_cast<int64_t>(window.size());
    cache->truncate(0);
    model.decode(tensor_of(window, {count}), *cache, {.seed = options.seed});
    const Tensor of_last = model.logits_of(count - 1, count);
    slow.push_back(sample_token(of_last.as<float>(), vocabulary, slow.size(), options));
    EXPECT_LT(writer.next(), vocabulary);
  }
  EXPECT_EQ(writer.tokens(), slow);
}

TEST(Generation, UnfinishedCharactersWait) {
  EXPECT_EQ(settled_length("caf\xC3\xA9"), 5U);
  EXPECT_EQ(settled_length("caf\xEF\xBF\xBD\xEF\xBF\xBD"), 3U);
  EXPECT_EQ(settled_length(""), 0U);
}

}  // namespace
}  // namespace nibble
