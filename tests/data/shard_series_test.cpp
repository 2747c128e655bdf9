// Tests of series of shards: what is in which, and going on after a stop.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/data/small_format.h"
#include "tests/data/test_files.h"

namespace nibble {
namespace {

TEST(Shard, SeriesKeepsDocumentsWhole) {
  const TemporaryDirectory directory;
  ShardSeries series(directory.path(), "train", small_format(), 100);
  std::vector<int32_t> document(30);
  std::iota(document.begin(), document.end(), 10);
  for (int i = 0; i < 7; ++i) series.add_document(document);  // 31 tokens each, so three fit in a shard
  series.add_document(std::vector<int32_t>(500, 9));          // longer than a shard
  series.add_document(document);
  EXPECT_TRUE(std::filesystem::exists(directory / "train-00003.bin"));
  EXPECT_FALSE(std::filesystem::exists(directory / "train-00004.bin"));
  series.finish();
  EXPECT_EQ(series.shards(), 5U);
  const std::vector<std::vector<uint64_t>> expected = {{31, 62, 93}, {31, 62, 93}, {31}, {501}, {31}};
  for (size_t i = 0; i < expected.size(); ++i) {
    ShardReader reader(directory / ("train-0000" + std::to_string(i) + ".bin"));
    EXPECT_EQ(reader.document_ends(), expected[i]);
  }
  EXPECT_EQ(series.documents(), 9U);
  EXPECT_EQ(series.tokens(), 8U * 31 + 501);
}

TEST(Shard, ASeriesGoesOnAfterItsWholeShards) {
  const TemporaryDirectory directory;
  const std::filesystem::path whole = directory / "whole";
  const std::filesystem::path broken = directory / "broken";
  std::filesystem::create_directories(whole);
  std::filesystem::create_directories(broken);
  std::vector<std::vector<int32_t>> documents;
  for (int32_t i = 0; i < 40; ++i) documents.emplace_back(static_cast<size_t>(1 + i * 7 % 23), i);
  const auto nothing = [](std::span<const int32_t>) {};
  {
    ShardSeries series(whole, "train", small_format(), 100);
    for (const auto& document : documents) series.add_document(document);
    series.finish();
  }
  {
    ShardSeries series(broken, "train", small_format(), 100);
    EXPECT_EQ(series.adopt(nothing), 0U);
    for (size_t i = 0; i < 25; ++i) series.add_document(documents[i]);
  }
  put(broken / ".train-00002.bin.partial", "left by a crash");
  ShardSeries series(broken, "train", small_format(), 100);
  uint64_t tokens = 0;
  const uint64_t adopted = series.adopt([&](std::span<const int32_t> ids) { tokens += ids.size(); });
  EXPECT_GT(adopted, 10U);
  EXPECT_LE(adopted, 25U);
  EXPECT_EQ(series.tokens(), tokens);
  EXPECT_EQ(series.documents(), adopted);
  for (size_t i = adopted; i < documents.size(); ++i) series.add_document(documents[i]);
  series.finish();
  size_t shards = 0;
  for (const auto& entry : std::filesystem::directory_iterator(whole)) {
    EXPECT_EQ(slurp(entry.path()), slurp(broken / entry.path().filename().string())) << entry.path();
    ++shards;
  }
  EXPECT_EQ(series.shards(), shards);
  EXPECT_EQ(series.documents(), documents.size());
  // A damaged shard is found, not adopted.
  std::string bytes = slurp(broken / "train-00001.bin");
  bytes[ShardHeader::bytes] = static_cast<char>(bytes[ShardHeader::bytes] ^ 1);
  put(broken / "train-00001.bin", bytes);
  ShardSeries damaged(broken, "train", small_format(), 100);
  expect_error(ExitCode::bad_data, [&] { damaged.adopt(nothing); });
}

}  // namespace
}  // namespace nibble
