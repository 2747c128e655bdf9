// The tokenizer files of an export. That the tokenizer.json gives the ids of the tokenizer is
// tests/data/tokenizer_json_writer_test.cpp; that AutoTokenizer gives them is scripts/check_huggingface.sh.
#include "trainer/huggingface/tokenizer_files.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "data/test_files.h"
#include "data/tokenizers/tokenizer.h"

namespace nibble {
namespace {

std::filesystem::path source(const std::string& name) {
  return std::filesystem::path(NIBBLE_SOURCE_DIR) / name;
}

const char own_config[] = R"({
  "add_bos_token": false,
  "add_eos_token": false,
  "clean_up_tokenization_spaces": false,
  "eos_token": "</s>",
  "model_max_length": 256,
  "pad_token": "</s>",
  "split_special_tokens": true,
  "tokenizer_class": "PreTrainedTokenizerFast",
  "unk_token": "<unk>"
}
)";

TEST(TokenizerFiles, OfATrainedTokenizer) {
  const TemporaryDirectory directory;
  const auto path = source("data/sample/tokenizer.model");
  const SpecialTokenIds ids = write_tokenizer_files(path, 4096, 256, directory.path());
  EXPECT_EQ(ids.beginning, 2);
  EXPECT_EQ(ids.end, 2);
  EXPECT_EQ(ids.padding, 2);
  EXPECT_EQ(slurp(directory / "tokenizer_config.json"), own_config);
  const std::string json = slurp(directory / "tokenizer.json");
  EXPECT_EQ(json, Tokenizer::load(path)->as_tokenizer_json());
  EXPECT_FALSE(std::filesystem::exists(directory / "tokenizer.model"));
  const auto read = Tokenizer::load(directory / "tokenizer.json");
  const std::string text = "<s>No</s> \xE2\x96\x81 special \xF0\x9F\x98\x80\n\t";
  EXPECT_EQ(read->encode(text), Tokenizer::load(path)->encode(text));
  EXPECT_EQ(read->decode(read->encode(text)), text);
}

TEST(TokenizerFiles, OfATokenizerJsonAndARankFile) {
  const TemporaryDirectory directory;
  const auto config = [&] { return nlohmann::json::parse(slurp(directory / "tokenizer_config.json")); };
  write_tokenizer_files(source("tests/data/tokenizers/llama2.json"), 4096, 64, directory.path());
  EXPECT_EQ(slurp(directory / "tokenizer.json"), slurp(source("tests/data/tokenizers/llama2.json")));
  EXPECT_EQ(config()["eos_token"], "</s>");
  EXPECT_EQ(config()["unk_token"], "<unk>");

  std::filesystem::copy(source("tests/data/tokenizers/ranks.tiktoken"), directory / "ranks.tiktoken");
  put(directory / "ranks.tiktoken.options", R"({"pattern":"llama3"})");
  const SpecialTokenIds ids = write_tokenizer_files(directory / "ranks.tiktoken", 421, 64, directory.path());
  EXPECT_EQ(ids.end, 420);
  EXPECT_EQ(config()["eos_token"], "<|endoftext|>");
  EXPECT_EQ(config()["pad_token"], "<|endoftext|>");
  EXPECT_FALSE(config().contains("unk_token"));
  EXPECT_EQ(Tokenizer::load(directory / "tokenizer.json")->eos_id(), 420);

  std::filesystem::remove(directory / "tokenizer_config.json");
  put(directory / "ranks.tiktoken.options", R"({"pattern":"a$|[\\s\\S]"})");  // not Oniguruma's $
  EXPECT_EQ(write_tokenizer_files(directory / "ranks.tiktoken", 421, 64, directory.path()).end, 420);
  EXPECT_FALSE(std::filesystem::exists(directory / "tokenizer_config.json"));
}

TEST(TokenizerFiles, ATokenizerLargerThanTheModelIsRefused) {
  const TemporaryDirectory directory;
  const auto path = source("data/sample/tokenizer.model");
  const std::string message =
      expect_error(ExitCode::bad_data, [&] { write_tokenizer_files(path, 4095, 64, directory.path()); });
  EXPECT_NE(message.find("tokenizer.model has 4096 tokens, but the model has a vocabulary of 4095"), std::string::npos)
      << message;
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

}  // namespace
}  // namespace nibble
