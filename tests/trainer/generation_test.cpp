#include "trainer/inference/generation.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <map>

#include "trainer/report/progress.h"

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

TEST(Generation, UnfinishedCharactersWait) {
  EXPECT_EQ(settled_length("caf\xC3\xA9"), 5U);
  EXPECT_EQ(settled_length("caf\xEF\xBF\xBD\xEF\xBF\xBD"), 3U);
  EXPECT_EQ(settled_length(""), 0U);
}

TEST(Progress, NumbersForPeople) {
  EXPECT_EQ(duration_text(59.2), "59s");
  EXPECT_EQ(duration_text(200), "3m20s");
  EXPECT_EQ(duration_text(7500), "2h05m");
}

}  // namespace
}  // namespace nibble
