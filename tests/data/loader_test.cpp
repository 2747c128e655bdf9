#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

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

// Three shards of 21, 10 and 40 tokens, 71 in all.
std::vector<std::string> three_shards(const TemporaryDirectory& directory) {
  write_counting_shard(directory / "a-0.bin", 21, 100);
  write_counting_shard(directory / "a-1.bin", 10, 200);
  write_counting_shard(directory / "a-2.bin", 40, 300);
  return {directory / "a-*.bin"};
}

TEST(Loader, WindowsGoOnFromOneShardIntoTheNext) {
  const TemporaryDirectory directory;
  Loader loader(three_shards(directory), 10, 0, false);
  EXPECT_EQ(loader.windows(), 7U);
  EXPECT_EQ(loader.tokens(), 71U);
  EXPECT_EQ(loader.tokens_in_no_window(), 0U);
  EXPECT_EQ(loader.vocab_size(), 100000U);
  EXPECT_EQ(loader.tokenizer_hash(), hash128("t"));
  std::vector<int32_t> stream = range(100, 20);
  for (const auto& [first, count] : {std::pair{0, 1}, {200, 9}, {0, 1}, {300, 39}, {0, 1}}) {
    const std::vector<int32_t> part = range(first, static_cast<size_t>(count));
    stream.insert(stream.end(), part.begin(), part.end());
  }
  for (uint64_t i = 0; i < 15; ++i) {
    const Sample sample = load(loader, i);
    const auto begin = stream.begin() + static_cast<std::ptrdiff_t>(i % 7 * 10);
    EXPECT_EQ(sample.tokens, std::vector<int32_t>(begin, begin + 10)) << i;
    EXPECT_EQ(sample.targets, std::vector<int32_t>(begin + 1, begin + 11)) << i;
  }
  EXPECT_EQ(Loader(three_shards(directory), 9, 0, false).tokens_in_no_window(), 7U);  // 7 windows of 9, and 1
}

// Positions of older versions say so, and their runs go on as they began.
TEST(Loader, WindowsStayInsideShardsForOlderRuns) {
  const TemporaryDirectory directory;
  Loader loader(three_shards(directory), 10, 0, false);
  loader.continue_at({.across_shards = false, .epoch = 1, .taken = 2, .lengths = {10}}, 7);
  EXPECT_EQ(loader.windows(), 5U);
  EXPECT_EQ(loader.tokens_in_no_window(), 10U + 9U);  // the second shard, and a rest of the third
  const std::vector<int32_t> starts = {100, 110, 300, 310, 320};
  for (uint64_t i = 7; i < 20; ++i) {
    const Sample sample = load(loader, i);
    const int32_t start = starts[i % 5];
    EXPECT_EQ(sample.tokens, range(start, 10)) << i;
    std::vector<int32_t> targets = range(start + 1, 10);
    if (start == 110) targets.back() = 0;  // the end-of-document token is a target
    EXPECT_EQ(sample.targets, targets) << i;
  }
  EXPECT_FALSE(loader.position(9).across_shards);
}

// Returns how often each token of the set is a target of samples [first, last). Tokens are known by their values.
std::map<int32_t, int> targets_in(Loader& loader, uint64_t first, uint64_t last) {
  std::map<int32_t, int> counts;
  for (uint64_t i = first; i < last; ++i) {
    for (const int32_t target : load(loader, i).targets) counts[target] += 1;
  }
  return counts;
}

// A run that is stopped and goes on with shorter sequences, twice in one epoch, reads every token of the epoch once.
TEST(Loader, ShorterSequencesReadNothingTwiceAndLeaveNothingOut) {
  const TemporaryDirectory directory;
  write_counting_shard(directory / "a.bin", 1000, 1);
  write_counting_shard(directory / "b.bin", 777, 10001);
  const std::vector<std::string> patterns{directory / "*.bin"};
  Loader long_ones(patterns, 48, 5, true);
  std::map<int32_t, int> counts = targets_in(long_ones, 0, 11);

  DataPosition position = with_length(long_ones.position(11), 24);
  EXPECT_EQ(position.lengths, (std::vector<uint64_t>{48, 24}));
  EXPECT_EQ(position.taken, 22U);
  Loader shorter(patterns, 24, 5, true);
  shorter.continue_at(position, 11);
  for (const auto& [target, count] : targets_in(shorter, 11, 20)) counts[target] += count;

  position = with_length(shorter.position(20), 8);
  EXPECT_EQ(position.taken, 31U * 3);
  Loader shortest(patterns, 8, 5, true);
  shortest.continue_at(position, 20);
  const uint64_t end_of_epoch = 20 + shortest.windows() - position.taken;
  for (const auto& [target, count] : targets_in(shortest, 20, end_of_epoch)) counts[target] += count;

  EXPECT_EQ(counts.at(0), 2);  // the ends of two documents
  counts.erase(0);
  EXPECT_EQ(counts.size(), 1774U);  // all but the first token: 1776 targets are 222 windows of 8
  for (const auto& [target, count] : counts) EXPECT_EQ(count, 1) << target;

  // The epochs after it are those of a run that always had this length.
  Loader always(patterns, 8, 5, true);
  for (uint64_t i = 0; i < 300; ++i) {
    EXPECT_EQ(load(shortest, end_of_epoch + i).tokens, load(always, always.windows() + i).tokens) << i;
  }
  EXPECT_EQ(shortest.position(end_of_epoch).lengths, std::vector<uint64_t>{8});
  EXPECT_EQ(shortest.position(end_of_epoch).epoch, 1U);
}

TEST(Loader, OtherLengthsBeginTheNextEpoch) {
  const DataPosition position{.shards = {1, 2}, .epoch = 3, .taken = 10, .lengths = {64, 32}};
  for (const uint64_t length : {64, 24}) {
    const DataPosition next = with_length(position, length);
    EXPECT_EQ(next.epoch, 4U);
    EXPECT_EQ(next.taken, 0U);
    EXPECT_EQ(next.lengths, std::vector<uint64_t>{length});
    EXPECT_EQ(next.shards, position.shards);
    EXPECT_EQ(tokens_read_again(position, length), 320U);
  }
  EXPECT_EQ(tokens_read_again(position, 16), 0U);
  DataPosition inside = position;
  inside.across_shards = false;
  EXPECT_EQ(tokens_read_again(inside, 16), 320U);
  EXPECT_TRUE(with_length(inside, 16).across_shards);
  inside.shards = {1};
  EXPECT_EQ(with_length(inside, 16).taken, 20U);
}

TEST(Loader, RenamedShardsKeepTheirOrder) {
  const TemporaryDirectory directory;
  write_counting_shard(directory / "a.bin", 100, 1);
  write_counting_shard(directory / "b.bin", 90, 1001);
  write_counting_shard(directory / "c.bin", 80, 2001);
  Loader before({directory / "*.bin"}, 8, 5, true);
  const DataPosition position = before.position(17);
  std::filesystem::create_directories(directory / "moved");
  for (const auto& [from, to] : {std::pair{"a", "3"}, {"b", "1"}, {"c", "2"}}) {
    std::filesystem::copy(directory / (std::string(from) + ".bin"), directory / ("moved/" + std::string(to)));
  }
  Loader after({directory / "moved/*"}, 8, 5, true);
  ASSERT_TRUE(after.has_shards_of(position));
  EXPECT_NE(after.fingerprint(), before.fingerprint());
  after.continue_at(position, 17);
  EXPECT_EQ(after.fingerprint(), before.fingerprint());
  for (uint64_t i = 17; i < 100; ++i) EXPECT_EQ(load(after, i).tokens, load(before, i).tokens) << i;
  EXPECT_FALSE(Loader({directory / "moved/[12]"}, 8, 5, true).has_shards_of(position));
  EXPECT_FALSE(after.has_shards_of({}));
}

TEST(Loader, SharedAndRepeatedShardsAreTold) {
  const TemporaryDirectory directory;
  write_counting_shard(directory / "a.bin", 100, 1);
  write_counting_shard(directory / "b.bin", 90, 1001);
  std::filesystem::copy(directory / "a.bin", directory / "copy");
  std::filesystem::create_symlink(directory / "a.bin", directory / "link");
  const Loader all({directory / "*"}, 8, 0, true);
  EXPECT_EQ(repeated_shards(all), 2U);
  const auto pairs =
      shards_in_both(Loader({directory / "*.bin"}, 8, 0, true), Loader({directory / "copy"}, 8, 0, true));
  ASSERT_EQ(pairs.size(), 1U);
  EXPECT_EQ(pairs[0], std::pair(std::string(directory / "a.bin"), std::string(directory / "copy")));
  EXPECT_TRUE(
      shards_in_both(Loader({directory / "b.bin"}, 8, 0, true), Loader({directory / "link"}, 8, 0, true)).empty());
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

// A shard of two documents of 5 and 4 tokens, twice, in windows of 7.
TEST(Loader, ADocumentEndsWithItsShard) {
  const TemporaryDirectory directory;
  for (const char* name : {"a.bin", "b.bin"}) {
    ShardHeader format;
    format.vocab_size = 100;
    format.eos_id = 2;
    ShardWriter writer(directory / name, format);
    for (const size_t length : {4, 3}) writer.add_document(std::vector<int32_t>(length, 5));
    writer.publish();
  }
  Loader loader({directory / "*.bin"}, 7, 0, false);
  ASSERT_EQ(loader.windows(), 2U);
  const std::vector<std::vector<int32_t>> expected = {{0, 0, 0, 0, 0, 5, 5}, {0, 0, 2, 2, 2, 2, 2}};
  for (uint64_t i = 0; i < 2; ++i) {
    std::vector<int32_t> tokens(7);
    std::vector<int32_t> targets(7);
    std::vector<int32_t> document_starts(7, -1);
    loader.load(i, tokens, targets, document_starts);
    EXPECT_EQ(document_starts, expected[i]) << i;
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

TEST(Loader, FingerprintFollowsContentAndOrder) {
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
  const std::string with_names = Loader({folder + "/*.bin"}, 8, 0, true).fingerprint_with_names();
  EXPECT_EQ(with_names, Loader({folder + "/moved/*.bin"}, 8, 0, true).fingerprint_with_names());
  std::filesystem::rename(folder + "/moved/b.bin", folder + "/moved/c.bin");
  EXPECT_EQ(original, fingerprint({folder + "/moved/*.bin"}));
  EXPECT_NE(with_names, Loader({folder + "/moved/*.bin"}, 8, 0, true).fingerprint_with_names());
  write_counting_shard(folder + "/b.bin", 100, 3);  // the same sizes, another content
  EXPECT_NE(original, fingerprint({folder + "/*.bin"}));
}

}  // namespace
}  // namespace nibble
