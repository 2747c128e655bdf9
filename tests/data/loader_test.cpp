#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "data/shards/shard.h"
#include "tests/data/test_files.h"

namespace nibble {
namespace {

// Writes a shard of one document that counts up from `first`; its last token is the end-of-document token, 0.
void write_counting_shard(const std::filesystem::path& path, uint64_t tokens, int32_t first,
                          const std::string& tokenizer = "t", uint32_t vocab_size = 100000) {
  ShardHeader format;
  format.vocab_size = vocab_size;
  format.tokenizer = hash128(tokenizer);
  format.block_bytes = 4096;
  ShardWriter writer(path, format);
  std::vector<int32_t> ids(tokens - 1);
  std::iota(ids.begin(), ids.end(), first);
  writer.add_document(ids);
  writer.publish();
}

struct Sample {
  std::vector<int32_t> tokens;
  std::vector<int32_t> targets;
};

Sample load(Loader& loader, uint64_t number) {
  Sample sample = {std::vector<int32_t>(loader.sequence_length()), std::vector<int32_t>(loader.sequence_length())};
  loader.load(number, sample.tokens, sample.targets);
  return sample;
}

std::vector<int32_t> range(int32_t first, size_t count) {
  std::vector<int32_t> values(count);
  std::iota(values.begin(), values.end(), first);
  return values;
}

TEST(Loader, WindowsStayInsideShards) {
  const TemporaryDirectory directory;
  write_counting_shard(directory / "a-0.bin", 21, 100);  // windows at 0 and 10, exactly
  write_counting_shard(directory / "a-1.bin", 10, 200);  // too short
  write_counting_shard(directory / "a-2.bin", 40, 300);  // windows at 0, 10 and 20; 9 tokens remain
  Loader loader({directory / "a-*.bin"}, 10, 0, false);
  EXPECT_EQ(loader.windows(), 5U);
  EXPECT_EQ(loader.tokens(), 71U);
  EXPECT_EQ(loader.vocab_size(), 100000U);
  EXPECT_EQ(loader.tokenizer_hash(), hash128("t"));
  const std::vector<int32_t> starts = {100, 110, 300, 310, 320};
  for (uint64_t i = 0; i < 12; ++i) {
    const Sample sample = load(loader, i);
    const int32_t start = starts[i % 5];
    EXPECT_EQ(sample.tokens, range(start, 10)) << i;
    std::vector<int32_t> targets = range(start + 1, 10);
    if (start == 110) targets.back() = 0;  // the end-of-document token is a target
    EXPECT_EQ(sample.targets, targets) << i;
  }
}

TEST(Loader, ShuffledEpochsVisitEveryWindowOnce) {
  const TemporaryDirectory directory;
  write_counting_shard(directory / "a-0.bin", 3000, 1);
  write_counting_shard(directory / "a-1.bin", 2500, 10001);
  Loader loader({directory / "a-*.bin"}, 7, 5, true);
  Loader in_order({directory / "a-*.bin"}, 7, 5, false);
  std::vector<int32_t> all;
  for (uint64_t i = 0; i < in_order.windows(); ++i) all.push_back(load(in_order, i).tokens[0]);
  std::vector<std::vector<int32_t>> epochs;
  for (uint64_t epoch = 0; epoch < 2; ++epoch) {
    std::vector<int32_t> starts;
    for (uint64_t i = 0; i < loader.windows(); ++i) {
      const Sample sample = load(loader, epoch * loader.windows() + i);
      starts.push_back(sample.tokens[0]);
      EXPECT_TRUE(std::equal(sample.tokens.begin() + 1, sample.tokens.end(), sample.targets.begin()));
    }
    epochs.push_back(starts);
    EXPECT_NE(starts, all);
    std::sort(starts.begin(), starts.end());
    EXPECT_EQ(starts, all);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  // A sample can be loaded without the samples before it.
  Loader fresh({directory / "a-*.bin"}, 7, 5, true);
  EXPECT_EQ(load(fresh, loader.windows() + 11).tokens[0], epochs[1][11]);
}

// Documents of 3, 1, 7 and 13 tokens, including their end-of-document tokens, in windows of 6 tokens. They end at 3, 4,
// 11 and 24.
TEST(Loader, TellsWhereDocumentsBegin) {
  const TemporaryDirectory directory;
  ShardHeader format;
  format.vocab_size = 100;
  format.eos_id = 2;
  ShardWriter writer(directory / "a.bin", format);
  for (const size_t length : {2, 0, 6, 12}) writer.add_document(std::vector<int32_t>(length, 5));
  writer.publish();
  Loader loader({directory / "a.bin"}, 6, 0, false);
  ASSERT_EQ(loader.windows(), 3U);
  const std::vector<std::vector<int32_t>> expected = {{0, 0, 0, 3, 4, 4}, {0, 0, 0, 0, 0, 5}, {0, 0, 0, 0, 0, 0}};
  for (uint64_t i = 0; i < 3; ++i) {
    std::vector<int32_t> tokens(6);
    std::vector<int32_t> targets(6);
    std::vector<int32_t> document_starts(6, -1);
    loader.load(i, tokens, targets, document_starts);
    EXPECT_EQ(document_starts, expected[i]) << i;
    EXPECT_EQ(tokens, load(loader, i).tokens) << i;
    EXPECT_EQ(targets, load(loader, i).targets) << i;
  }
}

TEST(Loader, ErrorsNameWhatIsWrong) {
  const TemporaryDirectory directory;
  write_counting_shard(directory / "a.bin", 10, 1);
  write_counting_shard(directory / "b.bin", 10, 1, "another tokenizer");
  write_counting_shard(directory / "c.bin", 10, 1, "t", 70000);
  const std::string folder = directory.path();
  std::string text = expect_error(ExitCode::bad_data, [&] { Loader loader({folder + "/a.bin"}, 10, 0, true); });
  EXPECT_NE(text.find("10 tokens"), std::string::npos) << text;
  EXPECT_NE(text.find("needs 11"), std::string::npos) << text;
  expect_error(ExitCode::bad_data, [&] { Loader loader({folder + "/[ab].bin"}, 5, 0, true); });
  expect_error(ExitCode::bad_data, [&] { Loader loader({folder + "/a.bin", folder + "/c.bin"}, 5, 0, true); });
  text = expect_error(ExitCode::missing_input, [&] { Loader loader({folder + "/train-*.bin"}, 5, 0, true); });
  EXPECT_NE(text.find("train-*.bin"), std::string::npos) << text;
  expect_error(ExitCode::missing_input, [&] { Loader loader({folder + "/a.bin", folder + "/none.bin"}, 5, 0, true); });
  expect_error(ExitCode::missing_input, [&] { Loader loader({}, 5, 0, true); });
  expect_error(ExitCode::bad_config, [&] { Loader loader({folder + "/a.bin", folder + "/./a.b*"}, 5, 0, true); });
}

TEST(Loader, DamageIsFoundWhenTouchedAndNotBefore) {
  const TemporaryDirectory directory;
  write_counting_shard(directory / "a.bin", 10000, 1);
  std::string bytes = slurp(directory / "a.bin");
  bytes[4096 + 2 * 4096] ^= 4;  // NOLINT(bugprone-narrowing-conversions)
  put(directory / "a.bin", bytes);
  Loader loader({directory / "a.bin"}, 64, 0, false);
  uint64_t refused = 0;
  for (uint64_t i = 0; i < loader.windows(); ++i) {
    try {
      load(loader, i);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      ++refused;
    }
  }
  // Block 2 of 4096 bytes holds 1024 tokens of 4 bytes: 16 windows, and the last target of another one.
  EXPECT_EQ(refused, 17U);
}

TEST(Loader, FingerprintFollowsNamesContentAndOrder) {
  const TemporaryDirectory directory;
  const std::string folder = directory.path();
  write_counting_shard(folder + "/a.bin", 100, 1);
  write_counting_shard(folder + "/b.bin", 100, 2);
  const auto fingerprint = [](std::vector<std::string> patterns) { return Loader(patterns, 8, 0, true).fingerprint(); };
  const std::string original = fingerprint({folder + "/a.bin", folder + "/b.bin"});
  EXPECT_EQ(original.size(), 32U);
  EXPECT_EQ(original, fingerprint({folder + "/*.bin"}));
  EXPECT_NE(original, fingerprint({folder + "/b.bin", folder + "/a.bin"}));
  EXPECT_NE(original, fingerprint({folder + "/a.bin"}));
  std::filesystem::create_directories(folder + "/moved");
  std::filesystem::copy(folder + "/a.bin", folder + "/moved/a.bin");
  std::filesystem::copy(folder + "/b.bin", folder + "/moved/b.bin");
  EXPECT_EQ(original, fingerprint({folder + "/moved/*.bin"}));
  write_counting_shard(folder + "/b.bin", 100, 3);  // the same sizes, another content
  EXPECT_NE(original, fingerprint({folder + "/*.bin"}));
}

}  // namespace
}  // namespace nibble
