// Tests of the model's configuration: what is refused, and what a model costs.
#include "model/config.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

#include "dist/base/error.h"
#include "model/blocks/block_kind.h"
#include "model/cost.h"
#include "model/model_fixture.h"

namespace nibble::test {
namespace {

ModelConfig valid() {
  ModelConfig config = tiny_config();
  config.dtype = DType::bf16;
  return config;
}

// Applies `change` to a valid configuration; the error must name `key` and say what to do.
void expect_refused(const std::string& key, const std::function<void(ModelConfig&)>& change) {
  ModelConfig config = valid();
  change(config);
  try {
    validate(config);
    ADD_FAILURE() << "accepted, though " << key << " is wrong";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_config);
    EXPECT_NE(std::string(error.what()).find(key), std::string::npos) << error.what();
    EXPECT_FALSE(error.remedy().empty());
  }
}

TEST(ModelConfig, AcceptsWhatIsRight) {
  EXPECT_NO_THROW(validate(valid()));
  ModelConfig without_attention = valid();
  without_attention.pattern = "--";
  without_attention.query_heads = 0;
  without_attention.kv_heads = 0;
  without_attention.head_dim = 0;
  EXPECT_NO_THROW(validate(without_attention));
  ModelConfig without_mlp = valid();
  without_mlp.pattern = "*";
  without_mlp.intermediate_size = 0;
  EXPECT_NO_THROW(validate(without_mlp));
}

TEST(ModelConfig, OnlyKnownCharactersNameBlocks) {
  const std::vector<const BlockKind*> kinds = kinds_of("*-");
  ASSERT_EQ(kinds.size(), 2U);
  EXPECT_EQ(kinds[0]->name, "attention");
  EXPECT_EQ(kinds[1]->name, "mlp");
  ModelConfig config = valid();
  config.pattern = "*M-";
  for (const auto& read :
       {std::function<void()>([&] { kinds_of(config.pattern); }), std::function<void()>([&] { validate(config); }),
        std::function<void()>([&] { model_cost(config); })}) {
    try {
      read();
      ADD_FAILURE() << "a block of no kind is accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_config);
      EXPECT_NE(std::string(error.what()).find("model.pattern has 'M'"), std::string::npos) << error.what();
    }
  }
}

TEST(ModelConfig, PatternsRepeatGroups) {
  EXPECT_EQ(expanded_pattern("*-*-"), "*-*-");
  EXPECT_EQ(expanded_pattern("(*-)x3"), "*-*-*-");
  EXPECT_EQ(expanded_pattern("M(-(M*)x2-)x2E"), "M-M*M*--M*M*-E");
  EXPECT_EQ(expanded_pattern("(*-)x64").size(), 128U);
  EXPECT_EQ(expanded_pattern(""), "");
  EXPECT_EQ(expanded_pattern(std::string(16, '(') + "*" +
                             [] {
                               std::string ends;
                               for (int i = 0; i < 16; ++i) ends += ")x1";
                               return ends;
                             }()),
            "*");
  for (const std::string pattern :
       {"(*-", "*-)", "(*-)", "(*-)32", "(*-)x", "(*-)x0", "(*-)x-1", "(*-)x99999999999999999999", "(*-)x2)",
        "((*)x1000)x2000", "(*-)x 2", "((((((((((((((((((*)x1"}) {
    try {
      expanded_pattern(pattern);
      ADD_FAILURE() << "accepted: " << pattern;
    } catch (const ModelConfigError& error) {
      EXPECT_EQ(error.key(), "model.pattern");
      EXPECT_NE(std::string(error.what()).find("model.pattern"), std::string::npos) << error.what();
    }
  }
}

TEST(ModelConfig, RefusesWhatIsWrong) {
  expect_refused("pattern", [](ModelConfig& c) { c.pattern = ""; });
  expect_refused("'x' at position 2", [](ModelConfig& c) { c.pattern = "*-x"; });
  expect_refused("'\xC3\xA9' at position 1", [](ModelConfig& c) { c.pattern = "*\xC3\xA9"; });
  expect_refused("vocab_size", [](ModelConfig& c) { c.vocab_size = 0; });
  expect_refused("vocab_size", [](ModelConfig& c) { c.vocab_size = 100; });
  expect_refused("hidden_size", [](ModelConfig& c) { c.hidden_size = -16; });
  expect_refused("hidden_size", [](ModelConfig& c) { c.hidden_size = 8; });
  expect_refused("hidden_size", [](ModelConfig& c) { c.hidden_size = int64_t{1} << 40; });
  expect_refused("the first matrix of an MLP", [](ModelConfig& c) { c.hidden_size = c.intermediate_size = 1 << 20; });
  expect_refused("the embedding", [](ModelConfig& c) { c.hidden_size = c.vocab_size = 1 << 20; });
  expect_refused("the projection of", [](ModelConfig& c) { c.hidden_size = c.head_dim = 1 << 20; });
  expect_refused("query_heads", [](ModelConfig& c) { c.query_heads = 0; });
  expect_refused("kv_heads", [](ModelConfig& c) { c.kv_heads = 3; });
  expect_refused("kv_heads", [](ModelConfig& c) { c.kv_heads = 0; });
  expect_refused("head_dim", [](ModelConfig& c) { c.head_dim = 15; });
  expect_refused("head_dim", [](ModelConfig& c) { c.head_dim = 2; });
  expect_refused("query_heads", [](ModelConfig& c) { c.query_heads = c.kv_heads = int64_t{1} << 30; });
  // 4 heads of 12 are 48 queries, but with 1 key and 1 value head there are 72 outputs.
  expect_refused("kv_heads", [](ModelConfig& c) { c.kv_heads = 1; });
  expect_refused("intermediate_size", [](ModelConfig& c) { c.intermediate_size = 0; });
  expect_refused("intermediate_size", [](ModelConfig& c) { c.intermediate_size = 40; });
  expect_refused("sequence_length", [](ModelConfig& c) { c.sequence_length = 0; });
  expect_refused("rope_theta", [](ModelConfig& c) { c.rope_theta = -1; });
  expect_refused("rope_scaling_factor", [](ModelConfig& c) { c.rope_scaling_factor = 0.5; });
  expect_refused("rope_scaling_factor",
                 [](ModelConfig& c) { c.rope_scaling_factor = std::numeric_limits<double>::infinity(); });
  expect_refused("rope_low_frequency_factor", [](ModelConfig& c) { c.rope_low_frequency_factor = 4; });
  expect_refused("rope_low_frequency_factor", [](ModelConfig& c) { c.rope_low_frequency_factor = 0; });
  expect_refused("rope_high_frequency_factor", [](ModelConfig& c) { c.rope_high_frequency_factor = -4; });
  expect_refused("rope_original_length", [](ModelConfig& c) { c.rope_original_length = 0; });
  expect_refused("norm_epsilon", [](ModelConfig& c) { c.norm_epsilon = std::numeric_limits<double>::quiet_NaN(); });
  expect_refused("norm_epsilon", [](ModelConfig& c) { c.norm_epsilon = 0; });
  expect_refused("init_std", [](ModelConfig& c) { c.init_std = std::numeric_limits<double>::infinity(); });
  expect_refused("dtype", [](ModelConfig& c) { c.dtype = DType::u8; });
}

TEST(ModelConfig, TheModelRefusesMicroBatchesThatDoNotFit) {
  const auto code_of = [](const LanguageModelOptions& options) {
    try {
      const LanguageModel model(valid(), plain(Format::bf16), options);
    } catch (const Error& error) {
      EXPECT_FALSE(error.remedy().empty());
      return error.code();
    }
    return ExitCode::ok;
  };
  EXPECT_EQ(code_of({.sequences = 1, .sequence_length = 16}), ExitCode::ok);
  EXPECT_EQ(code_of({.sequences = 2, .sequence_length = 8}), ExitCode::ok);
  EXPECT_EQ(code_of({.sequences = 1, .sequence_length = 8}), ExitCode::bad_config);
  EXPECT_EQ(code_of({.sequences = 0, .sequence_length = 16}), ExitCode::bad_config);
  EXPECT_EQ(code_of({.sequences = 1, .sequence_length = 32}), ExitCode::bad_config);
  EXPECT_EQ(code_of({.sequences = 1, .sequence_length = 0}), ExitCode::bad_config);
  EXPECT_EQ(code_of({.sequences = int64_t{1} << 60, .sequence_length = 16}), ExitCode::bad_config);
  EXPECT_EQ(code_of({.sequence_length = 16, .recompute = {true}}), ExitCode::bad_config);
}

// The numbers are counted by hand for hidden 32, 4 query and 2 key-value heads of 12, MLP 80, vocabulary 48, context
// 16, "*-*-":
//   attention: qkv 32 * (48 + 24 + 24) = 3072, output 48 * 32 = 1536; MLP: 2 * 32 * 80 + 80 * 32 = 7680.
TEST(ModelCost, CountedByHand) {
  ModelConfig config = tiny_config();
  const ModelCost untied = model_cost(config);
  EXPECT_EQ(untied.linear_parameters, 2U * (3072 + 1536 + 7680));
  EXPECT_EQ(untied.embedding_parameters, 2U * 48 * 32);
  EXPECT_EQ(untied.parameters, 24576U + 3072 + 5 * 32);
  // A token costs 2 FLOP a weight of linear layers and head, and in each of 2 attention blocks 2 * 2 * 48 * (16 / 2).
  EXPECT_EQ(untied.forward_flops_per_token, 2 * (24576 + 1536) + 2 * 1536);
  EXPECT_EQ(untied.training_flops_per_token, 3 * untied.forward_flops_per_token);
  config.tied_head = true;
  const ModelCost tied = model_cost(config);
  EXPECT_EQ(tied.parameters, untied.parameters - 48 * 32);
  EXPECT_EQ(tied.forward_flops_per_token, untied.forward_flops_per_token);
}

TEST(ModelCost, AgreesWithTheParameterTable) {
  for (bool tied : {false, true}) {
    ModelConfig config = tiny_config();
    config.tied_head = tied;
    config.qkv_bias = config.qk_norm = tied;
    const LanguageModel model(config, plain(Format::f32), {.sequence_length = 16, .training = false});
    uint64_t all = 0;
    uint64_t decayed = 0;
    for (const Parameter& parameter : model.parameters().parameters()) {
      all += parameter.count;
      decayed += parameter.decay ? parameter.count : 0;
    }
    EXPECT_EQ(all, model_cost(config).parameters);
    EXPECT_EQ(decayed, model_cost(config).linear_parameters);
  }
}

// This is the 30M model of the Quartet II paper: 6 layers, width 640, 5 heads of 128, MLP 1792.
TEST(ModelCost, PublishedParameterCount) {
  ModelConfig config;
  config.pattern = "*-*-*-*-*-*-";
  config.vocab_size = 32000;
  config.hidden_size = 640;
  config.query_heads = 5;
  config.kv_heads = 5;
  config.head_dim = 128;
  config.intermediate_size = 1792;
  config.sequence_length = 512;
  const ModelCost cost = model_cost(config);
  EXPECT_EQ(cost.parameters - cost.embedding_parameters, 30482560U);
}

}  // namespace
}  // namespace nibble::test
