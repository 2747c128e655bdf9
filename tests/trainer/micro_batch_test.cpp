#include "trainer/run/micro_batch.h"

#include <gtest/gtest.h>

#include <fstream>
#include <numeric>
#include <vector>

#include "data/shards/shard.h"
#include "tests/data/test_files.h"

namespace nibble {
namespace {

constexpr uint64_t tokens = 8192;
constexpr int64_t length = 16;
constexpr MicroBatchShape shape{.sequences = 4, .sequence_length = length, .document_mask = true};
constexpr uint64_t windows_a_block = 4096 / 2 / length;  // 128

// Writes a shard of documents of 100 tokens, whose blocks hold 128 windows.
void write_shard(const std::filesystem::path& path) {
  ShardHeader format;
  format.vocab_size = 10000;
  format.tokenizer = hash128("t");
  format.block_bytes = 4096;
  ShardWriter writer(path, format);
  std::vector<int32_t> ids(99);
  for (uint64_t first = 0; first < tokens; first += 100) {
    std::iota(ids.begin(), ids.end(), static_cast<int32_t>(first + 1));
    writer.add_document(ids);
  }
  writer.publish();
}

// Spoils a byte of the second block.
void damage(const std::filesystem::path& path) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(ShardHeader::bytes + 4096 + 5));
  file.put('\xFF');
}

std::vector<int32_t> values(const MicroBatch& batch) {
  std::vector<int32_t> all;
  for (const Tensor& part : {batch.tokens(), batch.targets(), batch.document_starts()}) {
    all.insert(all.end(), part.as<int32_t>(), part.as<int32_t>() + part.elements());
  }
  return all;
}

class MicroBatchQueueTest : public testing::Test {
 protected:
  MicroBatchQueueTest() { write_shard(directory_ / "train.bin"); }
  Loader loader() const { return Loader({directory_ / "train.bin"}, length, 0, /*shuffle=*/false); }
  TemporaryDirectory directory_;
};

TEST_F(MicroBatchQueueTest, GivesWhatTheLoaderHas) {
  Loader plain = loader();
  MicroBatch wanted(shape);
  for (const bool ahead : {false, true}) {
    Loader own = loader();
    MicroBatchQueue queue(own, shape, DeviceKind::cpu, ahead);
    const auto expect = [&](uint64_t first, std::optional<uint64_t> next) {
      wanted.load(plain, first, shape.sequences);
      EXPECT_EQ(values(queue.get(first, next)), values(wanted)) << first << " " << ahead;
    };
    for (uint64_t first = 0; first < 40; first += 4) expect(first, first + 4);
    expect(8, 12);  // a step that is computed again
    expect(12, std::nullopt);
    expect(16, 20);
  }
}

TEST_F(MicroBatchQueueTest, AnErrorComesWhenItsMicroBatchIsAskedFor) {
  damage(directory_ / "train.bin");
  for (const bool ahead : {false, true}) {
    Loader own = loader();
    MicroBatchQueue queue(own, shape, DeviceKind::cpu, ahead);
    const uint64_t last_good = windows_a_block - 8;  // a window reads one token beyond its own
    EXPECT_NO_THROW(queue.get(last_good, last_good + 4));
    try {
      queue.get(last_good + 4, std::nullopt);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
    }
    EXPECT_NO_THROW(queue.get(0, windows_a_block)) << "after an error";
    EXPECT_NO_THROW(queue.get(4, windows_a_block)) << "what nobody asks for is no error";
  }
}

}  // namespace
}  // namespace nibble
