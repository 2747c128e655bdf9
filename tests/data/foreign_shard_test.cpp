// Shards of llm.c, NumPy and nanoGPT are read token for token, and are refused if they do not agree with their header;
// files of other kinds are named.
#include <gtest/gtest.h>

#include <array>
#include <numeric>

#include "data/loader.h"
#include "data/shards/shard.h"
#include "tests/data/foreign_files.h"
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
  expect_bad_data("evaluation set", open);
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

// Ids of another tokenizer in llm.c's layout: the model's vocabulary or data.vocab_size bounds them, and the marks of
// GPT-2's documents mean nothing.
TEST(LlmcShard, AnyVocabulary) {
  const TemporaryDirectory directory;
  put(directory / "small.bin", file_of({}, std::vector<uint16_t>{1, 2, 1499}));
  put(directory / "large.bin", file_of({}, std::vector<uint16_t>{1, 60000, 50256}));
  const auto open = [&](const char* name, const ShardOptions& options) {
    return open_token_shard(directory / name, options);
  };
  EXPECT_EQ(open("small.bin", {.model_vocab_size = 1504})->vocab_size(), 1504U);
  EXPECT_EQ(open("small.bin", {.model_vocab_size = 50304})->vocab_size(), 50257U);
  EXPECT_TRUE(open("small.bin", {.model_vocab_size = 50304})->knows_documents());
  const auto small = open("small.bin", {.vocab_size = 1499, .model_vocab_size = 1504});
  EXPECT_EQ(small->eos_id(), std::nullopt);
  EXPECT_FALSE(small->knows_documents());
  std::vector<int32_t> ids(3);
  expect_bad_data("token 2 (byte 1028) has id 1499", [&] { small->read(0, ids); });
  const auto large = open("large.bin", {.vocab_size = 65000});
  large->read(0, ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{1, 60000, 50256}));
  expect_bad_data("token 1 (byte 1026) has id 60000", [&] { open("large.bin", {})->read(0, ids); });
}

TEST(NpyShard, IntegersOfOneAxis) {
  const TemporaryDirectory directory;
  std::string content;
  append(content, std::vector<uint16_t>{7, 65535, 9});
  put(directory / "a.npy", npy_file("<u2", 3, content));
  const auto shard = open_token_shard(directory / "a.npy");
  EXPECT_EQ(shard->format(), "NumPy array of uint16");
  EXPECT_EQ(shard->vocab_size(), 65536U);
  std::vector<int32_t> ids(2);
  shard->read(1, ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{65535, 9}));
  const auto refuses = [&](const std::string& bytes, const std::string& why) {
    put(directory / "a.npy", bytes);
    expect_bad_data(why, [&] { open_token_shard(directory / "a.npy"); });
  };
  refuses(npy_file("<f4", 3, content), "no token ids");
  refuses(npy_file(">u2", 3, content), "no token ids");
  refuses(npy_file("<u2", 4, content), "6 bytes follow the header");
  refuses(npy_file("<u2", 0, ""), "without elements");
  std::string square = npy_file("<u2", 30, content);
  square.replace(square.find("(30,)"), 5, "(1,3)");
  refuses(square, "2 axes");
}

TEST(BareShard, TheWidthIsNamed) {
  const TemporaryDirectory directory;
  std::string content;
  append(content, std::vector<uint16_t>{7, 50000, 9, 10});
  put(directory / "train.bin", content);
  const auto open = [&](const ShardOptions& options) { return open_token_shard(directory / "train.bin", options); };
  expect_bad_data("bare ids of 2 bytes", [&] { open({}); });
  std::vector<int32_t> ids(4);
  open({.token_bytes = 2})->read(0, ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{7, 50000, 9, 10}));
  EXPECT_EQ(open({.token_bytes = 2})->vocab_size(), 65536U);
  EXPECT_EQ(open({.vocab_size = 50257, .token_bytes = 2})->vocab_size(), 50257U);
  EXPECT_EQ(open({.token_bytes = 1})->tokens(), 8U);
  EXPECT_EQ(open({.vocab_size = 50257, .token_bytes = 4})->tokens(), 2U);
  expect_error(ExitCode::bad_config, [&] { open({.token_bytes = 4}); });
  content.clear();
  append(content, std::vector<uint32_t>{7, 150000, 9, 10});
  put(directory / "train.bin", content);
  expect_bad_data("bare ids of 4 bytes", [&] { open({}); });
  // Ids whose first bytes are those of gzip data, and small ids, which are every second byte of UTF-16.
  content.clear();
  append(content, std::vector<uint16_t>{0x8B1F, 7, 1, 2, 3, 4, 5, 6});
  put(directory / "train.bin", content);
  EXPECT_EQ(open({.token_bytes = 2})->tokens(), 8U);
  put(directory / "train.bin", content.substr(2));
  EXPECT_EQ(open({.token_bytes = 2})->tokens(), 7U);
  put(directory / "train.bin", content + "x");
  expect_bad_data("17 bytes are no whole number of ids of 2 bytes", [&] { open({.token_bytes = 2}); });
}

// Files of other kinds are named as what they are, whatever width of ids is named, and get the remedy for that.
TEST(OpenTokenShard, OtherKindsOfFilesAreNamed) {
  const TemporaryDirectory directory;
  const std::string rest(600, '\1');
  std::string tar(512, '\0');
  tar.replace(257, 5, "ustar");
  const std::vector<std::array<std::string, 3>> kinds{
      {"\x1f\x8b\x08" + rest, "gzip", "decompress"},
      {"\x28\xb5\x2f\xfd" + rest, "zstd", "decompress"},
      {std::string("\xfd"
                   "7zXZ\0",
                   6) +
           rest,
       "xz", "decompress"},
      {"BZh91AY" + rest, "bzip2", "decompress"},
      {tar, "tar archive", "unpack"},
      {"PAR1" + rest, "Parquet", "JSON lines"},
      {"PK\x03\x04" + rest, "zip archive", "unpack"},
      {"BIN.TOK\n" + rest, "LLMQ", "layouts"},
      {"{\"text\": \"\xc3\xa4\"}\n", "text", "nibble tokenize"},
      {"Once upon a time.\n", "text", "nibble tokenize"},
      {"\xff\xfeO\1n\1", "UTF-16", "iconv"},
      {slurp(NIBBLE_SOURCE_DIR "/data/sample/tokenizer.model"), "SentencePiece", "--tokenizer"},
      {"", "empty", "patterns"},
      {file_of({.magic = 20240522}, counting(100)), "evaluation set", "patterns"}};
  for (const auto& [content, what, remedy] : kinds) {
    put(directory / "a.bin", content);
    for (const uint32_t token_bytes : {0U, 2U}) {
      try {
        open_token_shard(directory / "a.bin", {.token_bytes = token_bytes});
        FAIL() << what;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
        EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
        EXPECT_NE(error.remedy().find(remedy), std::string::npos) << what << ": " << error.remedy();
      }
    }
  }
}

// Shards that do not name their tokenizer go with those that do, if their vocabularies are equal.
TEST(Loader, ShardsThatDoNotNameTheirTokenizer) {
  const TemporaryDirectory directory;
  for (const char* name : {"a", "b"}) {
    ShardHeader format;
    format.vocab_size = 50257;
    format.eos_id = 50256;
    format.tokenizer = hash128(name);
    ShardWriter writer(directory / (std::string(name) + ".bin"), format);
    writer.add_document(std::vector<int32_t>(100, 3));
    writer.publish();
  }
  put(directory / "llmc.bin", file_of({}, counting(100)));
  std::string content;
  append(content, counting(100));
  put(directory / "c.npy", npy_file("<u2", 100, content));
  const auto load = [&](std::initializer_list<const char*> names, const ShardOptions& options) {
    std::vector<std::string> paths;
    for (const char* name : names) paths.push_back(directory / name);
    return Loader(paths, 10, 0, false, options).tokenizer_hash();
  };
  EXPECT_EQ(load({"llmc.bin", "a.bin"}, {}), hash128("a"));
  EXPECT_EQ(load({"c.npy", "llmc.bin", "a.bin"}, {.vocab_size = 50257}), hash128("a"));
  expect_bad_data("different tokenizers", [&] { load({"c.npy", "a.bin"}, {}); });
  expect_bad_data("different tokenizers", [&] { load({"llmc.bin", "a.bin", "b.bin"}, {}); });
}

}  // namespace
}  // namespace nibble
