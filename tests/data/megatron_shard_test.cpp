// Megatron's pairs are read token for token with their documents, and a damaged pair is refused with the file's name.
#include "data/shards/megatron_shard.h"

#include <gtest/gtest.h>

#include <numeric>

#include "data/loader.h"
#include "data/shards/shard_pattern.h"
#include "tests/data/foreign_files.h"
#include "tests/data/test_files.h"

namespace nibble {
namespace {

template <class Id>
std::string counting(size_t count) {
  std::string bytes;
  for (size_t i = 0; i < count; ++i) append(bytes, static_cast<Id>(i % 100));
  return bytes;
}

const MegatronIndex three_documents{.lengths = {3, 0, 4, 5, 2}, .documents = {0, 1, 3, 3, 5}};

void put_pair(const TemporaryDirectory& directory, const MegatronIndex& index, const std::string& ids) {
  put(directory / "m.idx", index.bytes());
  put(directory / "m.bin", ids);
}

TEST(MegatronShard, EveryTypeOfIds) {
  const TemporaryDirectory directory;
  const auto check = [&](uint8_t code, int64_t token_bytes, const std::string& ids, const std::string& name) {
    MegatronIndex index = three_documents;
    index.type = code;
    index.token_bytes = token_bytes;
    put_pair(directory, index, ids);
    const auto shard = open_token_shard(directory / "m.bin", {.vocab_size = 100});
    EXPECT_EQ(shard->format(), "Megatron version 1 (" + name + ")");
    EXPECT_EQ(shard->tokens(), 14U);
    EXPECT_EQ(shard->documents(), 3U);
    std::vector<int32_t> read(10);
    shard->read(4, read);
    std::vector<int32_t> expected(10);
    std::iota(expected.begin(), expected.end(), 4);
    EXPECT_EQ(read, expected) << name;
  };
  check(1, 1, counting<uint8_t>(14), "uint8");
  check(2, 1, counting<int8_t>(14), "int8");
  check(3, 2, counting<int16_t>(14), "int16");
  check(4, 4, counting<int32_t>(14), "int32");
  check(5, 8, counting<int64_t>(14), "int64");
  check(8, 2, counting<uint16_t>(14), "uint16");
}

// Sequences 0 | 1, 2 | (none) | 3, 4 are documents of 3, 4 and 7 tokens.
TEST(MegatronShard, DocumentsFollowTheIndex) {
  const TemporaryDirectory directory;
  put_pair(directory, three_documents, counting<uint16_t>(14));
  const auto shard = open_token_shard(directory / "m.idx");
  std::vector<int32_t> ids(12);
  std::vector<int32_t> starts(12);
  shard->read(1, ids);
  shard->find_document_starts(1, ids, starts);
  EXPECT_EQ(starts, (std::vector<int32_t>{0, 0, 2, 2, 2, 2, 6, 6, 6, 6, 6, 6}));
  // What follows the last mark is a document too.
  put_pair(directory, {.lengths = {3, 4, 7}, .documents = {0}}, counting<uint16_t>(14));
  EXPECT_EQ(open_token_shard(directory / "m.bin")->documents(), 1U);
  // Modes of 0 say that there is nothing but text.
  put_pair(directory, {.lengths = {7, 7}, .documents = {0, 1, 2}, .modes = {0, 0}}, counting<uint16_t>(14));
  EXPECT_EQ(open_token_shard(directory / "m.bin")->documents(), 2U);
}

TEST(MegatronShard, APairIsNamedOnceByAnyOfItsNames) {
  const TemporaryDirectory directory;
  put_pair(directory, three_documents, counting<uint16_t>(14));
  put(directory / "m.binx", "x");
  for (const char* name : {"m", "m.bin", "m.idx", "m*.[bi][id][nx]", "?"}) {
    EXPECT_EQ(expand_patterns({directory / name}), std::vector<std::string>{directory / "m.bin"}) << name;
  }
  expect_error(ExitCode::bad_config, [&] { expand_patterns({directory / "m", directory / "m.idx"}); });
  EXPECT_EQ(Loader({directory / "m"}, 4, 0, false).windows(), 3U);
}

TEST(MegatronShard, VocabularyOfIdsWithoutBounds) {
  const TemporaryDirectory directory;
  MegatronIndex index = three_documents;
  index.type = 4;
  index.token_bytes = 4;
  put_pair(directory, index, counting<int32_t>(14));
  EXPECT_NE(expect_error(ExitCode::bad_config,
                         [&] {
                           open_token_shard(directory /
                                            "m"
                                            ".bin");
                         })
                .find("int32"),
            std::string::npos);
  EXPECT_EQ(open_token_shard(directory / "m.bin", {.model_vocab_size = 20})->vocab_size(), 20U);
  const auto shard = open_token_shard(directory / "m.bin", {.vocab_size = 12, .model_vocab_size = 20});
  EXPECT_EQ(shard->vocab_size(), 12U);
  std::vector<int32_t> ids(14);
  EXPECT_NE(expect_error(ExitCode::bad_data, [&] { shard->read(0, ids); }).find("token 12 (byte 48) has id 12"),
            std::string::npos);
  std::string negative = counting<int32_t>(14);
  negative[11] = '\xff';
  put(directory / "m.bin", negative);
  EXPECT_NE(expect_error(ExitCode::bad_data,
                         [&] { open_token_shard(directory / "m.bin", {.vocab_size = 100})->read(0, ids); })
                .find("token 2 (byte 8) has id -16777214"),
            std::string::npos);
}

TEST(MegatronShard, TheIdentityFollowsBothFiles) {
  const TemporaryDirectory directory;
  const auto identity = [&](const MegatronIndex& index, const std::string& ids) {
    put_pair(directory, index, ids);
    return open_token_shard(directory / "m.bin")->identity();
  };
  const uint64_t original = identity(three_documents, counting<uint16_t>(14));
  EXPECT_EQ(identity(three_documents, counting<uint16_t>(14)), original);
  EXPECT_NE(identity({.lengths = {3, 4, 7}, .documents = {0, 1, 2, 3}}, counting<uint16_t>(14)), original);
  std::string other = counting<uint16_t>(14);
  other[0] = 'a';
  EXPECT_NE(identity(three_documents, other), original);
}

TEST(MegatronShard, ADamagedPairIsRefusedByName) {
  const TemporaryDirectory directory;
  const std::string ids = counting<uint16_t>(14);
  const auto refuses = [&](const MegatronIndex& index, const std::string& bin, const std::string& file,
                           const std::string& why) {
    put_pair(directory, index, bin);
    const std::string text = expect_error(ExitCode::bad_data, [&] { open_token_shard(directory / "m.bin"); });
    EXPECT_TRUE(text.starts_with((directory / file).string())) << text;
    EXPECT_NE(text.find(why), std::string::npos) << text;
  };
  refuses(three_documents, ids.substr(0, 26), "m.bin", "26 bytes long");
  refuses(three_documents, ids + "xx", "m.bin", "30 bytes long");
  refuses({.lengths = {3, -1, 12}, .documents = {0, 3}}, ids, "m.idx", "sequence 1 has -1 tokens");
  refuses({.lengths = {3, 11}, .documents = {0, 1, 3}}, ids, "m.idx", "document mark 2 is 3");
  refuses({.lengths = {3, 4, 7}, .documents = {0, 2, 1, 3}}, ids, "m.idx", "document mark 2 is 1");
  refuses({.lengths = {3, 11}, .documents = {1, 2}}, ids, "m.idx", "begins with sequence 1");
  refuses({.lengths = {3, 11}, .documents = {0, 1, 2}, .token_bytes = 4}, ids, "m.idx",
          "begins at byte 12, not at byte 6");
  refuses({.lengths = {}, .documents = {0}}, ids, "m.idx", "no sequences");
  refuses({.lengths = {0}, .documents = {0, 1}}, ids, "m.idx", "no tokens");
  refuses({.lengths = {14}, .documents = {0, 1}, .version = 2}, ids, "m.idx", "version 2");
  refuses({.lengths = {14}, .documents = {0, 1}, .type = 9}, ids, "m.idx", "code 9");
  refuses({.lengths = {14}, .documents = {0, 1}, .type = 7}, ids, "m.idx", "float32");
  refuses({.lengths = {14}, .documents = {0, 1}, .type = 6}, ids, "m.idx", "float64");
  refuses({.lengths = {14}, .documents = {0, 1}, .modes = {1}}, ids, "m.idx", "mode 1");
  put_pair(directory, three_documents, ids);
  const std::string index = three_documents.bytes();
  for (size_t size = 9; size < index.size(); ++size) {
    put(directory / "m.idx", index.substr(0, size));
    expect_error(ExitCode::bad_data, [&] { open_token_shard(directory / "m.bin"); });
  }
  put(directory / "m.idx", index);
  std::filesystem::remove(directory / "m.bin");
  EXPECT_NE(
      expect_error(ExitCode::bad_data, [&] { Loader({directory / "m"}, 4, 0, false); }).find("m.bin: no such file"),
      std::string::npos);
}

}  // namespace
}  // namespace nibble
