// Parts are read window by window in their own orders, in the shares that the weights ask for.
#include "data/mixture.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <utility>

#include "data/shards/shard.h"
#include "tests/data/test_files.h"

namespace nibble {
namespace {

// A shard of one document that counts up from `first`; its last token is the end of the document, 0.
void write_shard(const std::filesystem::path& path, uint64_t tokens, int32_t first, uint32_t vocab_size = 100000) {
  ShardHeader format;
  format.vocab_size = vocab_size;
  format.tokenizer = hash128("t");
  ShardWriter writer(path, format);
  std::vector<int32_t> ids(tokens - 1);
  std::iota(ids.begin(), ids.end(), first);
  writer.add_document(ids);
  writer.publish();
}

struct PartOf {
  std::string name;
  double weight;
};

Mixture open(const TemporaryDirectory& directory, const std::vector<PartOf>& parts, uint64_t length = 10) {
  std::vector<Mixture::Part> opened;
  for (const PartOf& part : parts) {
    opened.push_back({.name = part.name,
                      .weight = part.weight,
                      .loader = std::make_unique<Loader>(std::vector<std::string>{directory / (part.name + ".bin")},
                                                         length, 7, true)});
  }
  return Mixture(std::move(opened), 7);
}

int32_t first_target(SampleSource& source, uint64_t sample) {
  std::vector<int32_t> tokens(source.sequence_length());
  std::vector<int32_t> targets(source.sequence_length());
  source.load(sample, tokens, targets, {});
  return targets.front();
}

TEST(Mixture, OnePartIsTheLoaderAlone) {
  const TemporaryDirectory directory;
  write_shard(directory / "a.bin", 301, 1000);
  Mixture mixture = open(directory, {{"a", 0.3}});
  Loader loader({directory / "a.bin"}, 10, 7, true);
  for (uint64_t sample = 0; sample < 100; ++sample) {
    EXPECT_EQ(first_target(mixture, sample), first_target(loader, sample));
  }
  EXPECT_EQ(mixture.fingerprint(), loader.fingerprint());
  EXPECT_EQ(mixture.position(0, 42).taken, 42U % 30);
}

// Each part's windows come once in each of its own epochs, and its share of samples is the weight's.
TEST(Mixture, PartsHaveTheirOwnEpochs) {
  const TemporaryDirectory directory;
  write_shard(directory / "a.bin", 301, 1000);
  write_shard(directory / "b.bin", 71, 5000);
  Mixture mixture = open(directory, {{"a", 3}, {"b", 1}});
  std::map<int32_t, int> seen;
  for (uint64_t sample = 0; sample < 120; ++sample) seen[first_target(mixture, sample)] += 1;
  EXPECT_EQ(mixture.taken(0, 120), 90U);
  for (const auto& [target, count] : seen) {
    if (target >= 5000) {
      EXPECT_TRUE(count == 4 || count == 5) << target;  // 30 samples of 7 windows
    } else {
      EXPECT_EQ(count, 3) << target;  // 90 samples of 30 windows
    }
  }
  EXPECT_EQ(seen.size(), 37U);
  EXPECT_EQ(mixture.position(0, 120).epoch, 3U);
  EXPECT_EQ(mixture.position(1, 120).epoch, 4U);
  EXPECT_EQ(mixture.position(1, 120).taken, 2U);
}

// A mixture that goes on with other weights reads every part on where it was.
TEST(Mixture, OtherWeightsReadOnWhereAPartWas) {
  const TemporaryDirectory directory;
  write_shard(directory / "a.bin", 501, 1000);
  write_shard(directory / "b.bin", 501, 5000);
  std::map<int32_t, int> seen;
  Mixture before = open(directory, {{"a", 3}, {"b", 1}});
  for (uint64_t sample = 0; sample < 37; ++sample) seen[first_target(before, sample)] += 1;
  Mixture after = open(directory, {{"a", 1}, {"b", 1}});
  for (const size_t part : {size_t{0}, size_t{1}}) after.continue_at(part, before.position(part, 37), 37);
  uint64_t last = 37;
  while (before.taken(0, 37) + after.taken(0, last) - after.taken(0, 37) < 50) {
    seen[first_target(after, last++)] += 1;
  }
  for (int32_t target = 1001; target < 1500; target += 10) EXPECT_EQ(seen[target], 1) << target;
  for (const auto& [target, count] : seen) EXPECT_EQ(count, 1) << target;
}

TEST(Mixture, MistakesAreNamed) {
  const TemporaryDirectory directory;
  write_shard(directory / "a.bin", 301, 1000);
  write_shard(directory / "c.bin", 301, 1000, 90000);
  std::filesystem::copy(directory / "a.bin", directory / "b.bin");
  EXPECT_NE(expect_error(ExitCode::bad_config,
                         [&] {
                           open(directory, {{"a", 1}, {"b", 1}});
                         })
                .find("parts a and b"),
            std::string::npos);
  expect_error(ExitCode::bad_data, [&] { open(directory, {{"a", 1}, {"c", 1}}); });
  expect_error(ExitCode::bad_data, [&] { open(directory, {{"a", 1}}, 301); });
  write_shard(directory / "b.bin", 301, 2000);
  EXPECT_NE(open(directory, {{"a", 1}, {"b", 1}}).fingerprint(), open(directory, {{"a", 2}, {"b", 1}}).fingerprint());
  EXPECT_EQ(open(directory, {{"a", 2}, {"b", 2}}).fingerprint(), open(directory, {{"a", 1}, {"b", 1}}).fingerprint());
}

}  // namespace
}  // namespace nibble
