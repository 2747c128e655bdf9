#include "trainer/config/user_path.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "dist/base/error.h"
#include "trainer/checkpoint_fixture.h"
#include "trainer/config/run_config.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

class UserPath : public testing::Test {
 protected:
  void SetUp() override {
    setenv("HOME", "/home/[me]", 1);
    setenv("SCRATCH", "/scratch/a*", 1);
    setenv("EMPTY", "", 1);
    unsetenv("UNSET");
    fs::current_path(scratch_.path());
  }
  void TearDown() override {
    fs::current_path(before_);
    setenv("HOME", home_.c_str(), 1);
  }

  fs::path before_ = fs::current_path();
  std::string home_ = std::getenv("HOME") == nullptr ? "/" : std::getenv("HOME");
  testing_support::ScratchDirectory scratch_{"nibble_user_path"};
};

std::string refusal(std::string_view written) {
  try {
    return "accepted: " + expand_path(written);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_FALSE(error.remedy().empty());
    return error.what();
  }
}

TEST_F(UserPath, HomeAndVariablesAreReplaced) {
  EXPECT_EQ(expand_path("~"), "/home/[me]");
  EXPECT_EQ(expand_path("~/runs/a"), "/home/[me]/runs/a");
  EXPECT_EQ(expand_path("$SCRATCH"), "/scratch/a*");
  EXPECT_EQ(expand_path("$SCRATCH/b"), "/scratch/a*/b");
  EXPECT_EQ(expand_path("/x/${SCRATCH}y/$SCRATCH.z"), "/x//scratch/a*y//scratch/a*.z");
  EXPECT_EQ(expand_path("a/~/b~"), "a/~/b~");  // only at the beginning
  EXPECT_EQ(expand_path("a$$b"), "a$b");
  EXPECT_EQ(expand_path(""), "");
  EXPECT_EQ(expand_path("/plain//path/"), "/plain//path/");
}

TEST_F(UserPath, WhatIsNotWrittenIsNoPattern) {
  EXPECT_EQ(expand_path_in_pattern("~/d-*.bin"), "/home/\\[me]/d-*.bin");
  EXPECT_EQ(expand_path_in_pattern("$SCRATCH/d-*.bin"), "/scratch/a\\*/d-*.bin");
}

TEST_F(UserPath, EverythingElseIsRefused) {
  EXPECT_EQ(refusal("$UNSET/x"), "the variable UNSET is not set");
  EXPECT_EQ(refusal("x/${EMPTY}"), "the variable EMPTY is empty");
  EXPECT_EQ(refusal("~ann/x").substr(0, 6), "\"~ann\"");
  for (const char* text : {"$", "a$", "$1", "${}", "${A", "${A:-b}", "$(pwd)", "a$-b"}) {
    EXPECT_NE(refusal(text).find("is no variable"), std::string::npos) << text;
  }
}

TEST_F(UserPath, NamesThatExistAreTakenAsTheyAre) {
  for (const char* name : {"~", "$SCRATCH", "a$UNSET", "dir/$SCRATCH"}) fs::create_directories(name);
  EXPECT_EQ(expand_path("./~/x"), "./~/x");
  EXPECT_EQ(expand_path("./$SCRATCH/x"), "./$SCRATCH/x");
  EXPECT_EQ(expand_path("a$UNSET/x"), "a$UNSET/x");
  EXPECT_EQ(expand_path("dir/$SCRATCH"), "dir/$SCRATCH");
  EXPECT_EQ(expand_path("$SCRATCH/x"), "/scratch/a*/x");
  EXPECT_EQ(expand_path("~/x"), "/home/[me]/x");
}

constexpr const char* text = R"(run: {dir: "~/runs/a"}
recipe: {name: plain}
model: {pattern: "*-", hidden_size: 64, query_heads: 4, kv_heads: 2, head_dim: 16, intermediate_size: 128,
        sequence_length: 64}
data: {train: "d/train-*.bin", validation: ["$SCRATCH/v-*.bin", "/a/v.bin"], tokenizer: "~/t$$.model"}
train: {steps: 100, micro_batch_sequences: 2, tokens_per_step: 768}
optimizer: {learning_rate: 3e-3}
)";

TEST_F(UserPath, TheResolvedConfigurationMeansTheSame) {
  fs::create_directories("exp[1] $SCRATCH");
  fs::current_path("exp[1] $SCRATCH");
  const std::string here = fs::current_path();
  const RunConfig config = parse_run_config_text(text, "c.yaml");
  EXPECT_EQ(config.run.dir, "/home/[me]/runs/a");
  EXPECT_EQ(config.data.tokenizer, "/home/[me]/t$.model");
  EXPECT_EQ(config.data.validation.at(0).patterns, (std::vector<std::string>{"/scratch/a\\*/v-*.bin", "/a/v.bin"}));
  EXPECT_EQ(config.data.train.front().patterns.front(),
            fs::path(here).parent_path().string() + "/exp\\[1] $SCRATCH/d/train-*.bin");
  EXPECT_EQ(tokenizer_path(parse_run_config_text(text, "c.yaml", {{"data.tokenizer", "\"\"", "test"}})),
            here + "/d/tokenizer.model");

  const std::string resolved = resolved_yaml(config);
  fs::current_path(before_);
  setenv("HOME", "/elsewhere", 1);
  const RunConfig again = parse_run_config_text(resolved, "config.yaml");
  EXPECT_EQ(again.data.train, config.data.train);
  EXPECT_EQ(again.data.validation, config.data.validation);
  EXPECT_EQ(again.data.tokenizer, config.data.tokenizer);
  EXPECT_EQ(resolved_yaml(again), resolved);
}

TEST_F(UserPath, AKeyNamesItselfInTheRefusal) {
  for (const auto& [key, value] : {std::pair{"run.dir", "~ann/x"}, std::pair{"data.train", "$UNSET/*.bin"},
                                   std::pair{"data.tokenizer", "$UNSET"}, std::pair{"recipe", "$UNSET/r.yaml"}}) {
    try {
      parse_run_config_text(text, "c.yaml", {{key, value, "--set"}});
      ADD_FAILURE() << key;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_config);
      EXPECT_NE(std::string(error.what()).find(key), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace nibble
