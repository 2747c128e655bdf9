// Where the keys of `model` come from that a configuration does not give.
#include "trainer/config/model_defaults.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "dist/base/error.h"
#include "trainer/checkpoint_fixture.h"
#include "trainer/config/run_config.h"

namespace nibble {
namespace {

class ModelDefaults : public testing::Test {
 protected:
  ModelDefaults() : scratch_("nibble_model_defaults") {
    found_.pattern = "*-*-";
    found_.vocab_size = 512;
    found_.hidden_size = 128;
    found_.query_heads = 4;
    found_.kv_heads = 2;
    found_.head_dim = 32;
    found_.intermediate_size = 256;
    found_.sequence_length = 4096;
    found_.rope_theta = 5e5;
    found_.norm_epsilon = 1e-6;
    found_.dtype = DType::f32;
    std::filesystem::create_directories(scratch_.path() / "models");
    std::filesystem::create_directories(scratch_.path() / "runs");
    std::ofstream(scratch_.path() / "models/small.yaml")
        << "pattern: \"(*-)x2\"\nhidden_size: 64\nquery_heads: 4\nkv_heads: 2\nhead_dim: 16\n"
           "intermediate_size: 128\nsequence_length: 64\n";
  }

  RunConfig parse(const std::string& model, bool with_reader = true) {
    const std::filesystem::path path = scratch_.path() / "runs/run.yaml";
    std::ofstream(path) << "run: {dir: /runs/a}\nrecipe: {name: plain}\nmodel: " << model
                        << "\ndata: {train: /data/t.bin}\n"
                           "train: {steps: 10, micro_batch_sequences: 2, tokens_per_step: 8192}\n"
                           "optimizer: {learning_rate: 1e-3}\n";
    return parse_run_config(path.string(), {},
                            with_reader ? ModelReader([&](const std::string& from) {
                              asked_ = from;
                              return found_;
                            })
                                        : ModelReader());
  }
  void expect_refused(const std::string& model, ExitCode code, const std::string& word) {
    try {
      parse(model);
      FAIL() << "accepted: " << model;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
      EXPECT_FALSE(error.remedy().empty());
    }
  }

  testing_support::ScratchDirectory scratch_;
  ModelConfig found_;
  std::string asked_;
};

TEST_F(ModelDefaults, KeysThatAreNotGivenComeFromTheModel) {
  const RunConfig config = parse("{from: /models/found, sequence_length: 64, dtype: bf16}");
  EXPECT_EQ(asked_, "/models/found");
  EXPECT_EQ(config.model.pattern, "*-*-");
  EXPECT_EQ(config.model.hidden_size, 128);
  EXPECT_EQ(config.model.vocab_size, 512);
  EXPECT_EQ(config.model.rope_theta, 5e5);
  EXPECT_EQ(config.model.norm_epsilon, 1e-6);
  // These may differ: they say how the run uses the weights.
  EXPECT_EQ(config.model.sequence_length, 64);
  EXPECT_EQ(config.model.dtype, DType::bf16);
  EXPECT_EQ(parse("{from: /models/found}").model.sequence_length, 4096);
  EXPECT_EQ(parse("{from: /models/found}").model.dtype, DType::f32);
}

TEST_F(ModelDefaults, AKeyThatDiffersIsRefusedByName) {
  expect_refused("{from: /models/found, hidden_size: 64}", ExitCode::bad_config, "model.hidden_size is 64");
  expect_refused("{from: /models/found, rope_theta: 1e4}", ExitCode::bad_config, "model.rope_theta is 10000");
  expect_refused("{from: /models/found, vocab_size: 1024}", ExitCode::bad_config, "model.vocab_size is 1024");
  expect_refused("{from: /models/found, pattern: '(*-)x3'}", ExitCode::bad_config, "model.pattern");
  EXPECT_EQ(parse("{from: /models/found, hidden_size: 128, pattern: '(*-)x2'}").model.hidden_size, 128);
}

TEST_F(ModelDefaults, ASkippedTensorMayHaveAnotherSizeButNoOtherMeaning) {
  const RunConfig config = parse("{from: /models/found, from_skip: embedding|head, vocab_size: 1024}");
  EXPECT_EQ(config.model.vocab_size, 1024);
  EXPECT_EQ(parse("{from: /models/found, vocab_size: 0}").model.vocab_size, 0);
  expect_refused("{from: /models/found, from_skip: head, rope_theta: 1e4}", ExitCode::bad_config, "model.rope_theta");
}

TEST_F(ModelDefaults, APresetIsFoundBesideTheConfigurationAndKeysOverrideIt) {
  const RunConfig config = parse("{preset: small, head_dim: 32}");
  EXPECT_EQ(config.model.pattern, "*-*-");
  EXPECT_EQ(config.model.hidden_size, 64);
  EXPECT_EQ(config.model.head_dim, 32);
  EXPECT_EQ(config.model_origin.preset, "");
  const std::string resolved = resolved_yaml(config);
  EXPECT_EQ(resolved_yaml(parse_run_config_text(resolved, "elsewhere.yaml")), resolved);
  EXPECT_EQ(parse(fmt::format("{{preset: '{}'}}", (scratch_.path() / "models/small.yaml").string())).model.hidden_size,
            64);
}

TEST_F(ModelDefaults, APresetThatIsNoneIsRefused) {
  expect_refused("{preset: smal}", ExitCode::missing_input, "no model preset \"smal\"");
  std::ofstream(scratch_.path() / "models/wrong.yaml") << "model: {hidden_size: 64}\n";
  expect_refused("{preset: wrong}", ExitCode::bad_config, "is no key of a model preset");
  std::ofstream(scratch_.path() / "models/circle.yaml") << "preset: small\n";
  expect_refused("{preset: circle}", ExitCode::bad_config, "is no key of a model preset");
}

// A resolved configuration has every key, so that a resumed run does not need the model that it started from.
TEST_F(ModelDefaults, AResolvedConfigurationNeedsNoModel) {
  const std::string resolved = resolved_yaml(parse("{from: /models/found}"));
  const RunConfig again = parse_run_config_text(resolved, "elsewhere.yaml");
  EXPECT_EQ(again.model_origin.from, "/models/found");
  EXPECT_EQ(resolved_yaml(again), resolved);
}

TEST(ModelPresets, AllOfThemAreModels) {
  const std::filesystem::path directory = std::filesystem::path(NIBBLE_SOURCE_DIR) / "configs/models";
  int presets = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string text = fmt::format(
        "run: {{dir: /a}}\nrecipe: {{name: plain}}\nmodel: {{preset: {}}}\ndata: {{train: /t.bin}}\n"
        "train: {{steps: 10, micro_batch_sequences: 1, tokens_per_step: 1048576}}\noptimizer: {{learning_rate: "
        "1e-3}}\n",
        entry.path().stem().string());
    const RunConfig config = parse_run_config_text(text, (directory / "run.yaml").string());
    EXPECT_GT(config.model.blocks(), 0) << entry.path();
    EXPECT_EQ(config.model.hidden_size % 128, 0) << entry.path();
    EXPECT_EQ(config.model.intermediate_size % 128, 0) << entry.path();
    ++presets;
  }
  EXPECT_GE(presets, 6);
}

}  // namespace
}  // namespace nibble
