// Shards of llm.c are read token for token, and are refused if they do not agree with their header.
#include <gtest/gtest.h>

#include <numeric>

#include "data/loader.h"
#include "data/shards/token_shard.h"
#include "tests/data/test_files.h"

namespace nibble {
namespace {

struct Content {
  int32_t magic = 20240520;
  int32_t version = 1;
  int32_t count = 0;
};

template <class Token>
std::string file_of(Content content, const std::vector<Token>& tokens) {
  std::vector<int32_t> header(256);
  if (content.count == 0) content.count = static_cast<int32_t>(tokens.size());
  header[0] = content.magic;
  header[1] = content.version;
  header[2] = content.count;
  std::string bytes(reinterpret_cast<const char*>(header.data()), header.size() * sizeof(int32_t));
  return bytes.append(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(Token));
}

std::vector<uint16_t> counting(size_t count) {
  std::vector<uint16_t> tokens(count);
  for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<uint16_t>(i * 997 % 50257);
  return tokens;
}

template <class Action>
void expect_bad_data(const std::string& text, Action action) {
  try {
    action();
    FAIL() << "no error for: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

TEST(LlmcShard, Gpt2TokensOfTwoBytes) {
  const TemporaryDirectory directory;
  const std::vector<uint16_t> tokens = counting(70000);
  put(directory / "a.bin", file_of({}, tokens));
  const std::unique_ptr<TokenShard> shard = open_token_shard(directory / "a.bin");
  EXPECT_EQ(shard->tokens(), 70000U);
  EXPECT_EQ(shard->vocab_size(), 50257U);
  EXPECT_EQ(shard->eos_id(), 50256U);
  std::vector<int32_t> ids(1000);
  shard->read(69000, ids);
  EXPECT_TRUE(std::equal(ids.begin(), ids.end(), tokens.begin() + 69000));
}

TEST(LlmcShard, Llama3TokensOfFourBytes) {
  const TemporaryDirectory directory;
  const std::vector<uint32_t> tokens = {128000, 1, 2, 128255, 70000};
  put(directory / "a.bin", file_of({.magic = 20240801, .version = 7}, tokens));
  const std::unique_ptr<TokenShard> shard = open_token_shard(directory / "a.bin");
  std::vector<int32_t> ids(5);
  shard->read(0, ids);
  EXPECT_TRUE(std::equal(ids.begin(), ids.end(), tokens.begin()));
}

// A mark is the first token of a document: the end-of-text token of GPT-2, or the beginning-of-text token of Llama 3.
TEST(LlmcShard, DocumentsBeginAtTheirMarks) {
  const TemporaryDirectory directory;
  put(directory / "gpt2.bin", file_of({}, std::vector<uint16_t>{50256, 1, 2, 50256, 3, 50256, 50256, 4}));
  put(directory / "llama3.bin", file_of({.magic = 20240801, .version = 7},
                                        std::vector<uint32_t>{128000, 1, 50256, 128000, 128001, 128000, 128000, 4}));
  for (const char* name : {"gpt2.bin", "llama3.bin"}) {
    Loader loader({directory / name}, 7, 0, false);
    std::vector<int32_t> tokens(7);
    std::vector<int32_t> targets(7);
    std::vector<int32_t> starts_in_window(7, -1);
    loader.load(0, tokens, targets, starts_in_window);
    EXPECT_EQ(starts_in_window, (std::vector<int32_t>{0, 0, 0, 3, 3, 5, 6})) << name;
    const std::unique_ptr<TokenShard> shard = open_token_shard(directory / name);
    std::vector<int32_t> ids(5);
    std::vector<int32_t> document_starts(5, -1);
    shard->read(2, ids);
    shard->find_document_starts(2, ids, document_starts);
    EXPECT_EQ(document_starts, (std::vector<int32_t>{0, 1, 1, 3, 4})) << name;
  }
}

TEST(LlmcShard, WhatIsWrongIsNamed) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory / "a.bin";
  const auto open = [&] { open_token_shard(path); };
  const std::string good = file_of({}, counting(100));
  put(path, good.substr(0, good.size() - 1));
  expect_bad_data("1223 bytes long, but its header describes 1224", open);
  put(path, good + "x");
  expect_bad_data("1225 bytes long", open);
  put(path, good.substr(0, 1000));
  expect_bad_data("less than the header", open);
  put(path, file_of({.version = 2}, counting(100)));
  expect_bad_data("version 2", open);
  put(path, file_of({.count = -5}, counting(100)));
  expect_bad_data("counts -5 tokens", open);
  put(path, file_of({.magic = 20240522}, counting(100)));
  expect_bad_data("neither", open);
}

TEST(LlmcShard, AnIdOutsideTheVocabularyIsNamed) {
  const TemporaryDirectory directory;
  std::vector<uint16_t> tokens = counting(100);
  tokens[42] = 50257;
  put(directory / "a.bin", file_of({}, tokens));
  const std::unique_ptr<TokenShard> shard = open_token_shard(directory / "a.bin");
  std::vector<int32_t> ids(42);
  shard->read(0, ids);
  ids.resize(2);
  expect_bad_data("token 42 (byte 1108) has id 50257", [&] { shard->read(41, ids); });
}

TEST(LlmcShard, TheLoaderTrainsOnIt) {
  const TemporaryDirectory directory;
  const std::vector<uint16_t> tokens = counting(1001);
  put(directory / "a.bin", file_of({}, tokens));
  Loader loader({(directory / "*.bin").string()}, 100, 7, false);
  EXPECT_EQ(loader.windows(), 10U);
  EXPECT_EQ(loader.vocab_size(), 50257U);
  std::vector<int32_t> inputs(100);
  std::vector<int32_t> targets(100);
  loader.load(3, inputs, targets);
  EXPECT_TRUE(std::equal(inputs.begin(), inputs.end(), tokens.begin() + 300));
  EXPECT_TRUE(std::equal(targets.begin(), targets.end(), tokens.begin() + 301));
  const std::string fingerprint = loader.fingerprint();
  std::vector<uint16_t> other = tokens;
  other[1000] = 3;
  put(directory / "a.bin", file_of({}, other));
  EXPECT_NE(Loader({(directory / "a.bin").string()}, 100, 7, false).fingerprint(), fingerprint);
}

}  // namespace
}  // namespace nibble
