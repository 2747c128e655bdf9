#include "quant/format/philox.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace nibble {
namespace {

// The answers are the three vectors of the Random123 distribution (kat_vectors, philox4x32 10).
TEST(Philox, KnownAnswers) {
  const auto expect = [](const PhiloxBlock& counter, uint32_t key0, uint32_t key1, const PhiloxBlock& answer) {
    const PhiloxBlock drawn = philox4x32_10(counter, key0, key1);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(drawn.word[i], answer.word[i]);
  };
  expect({{0, 0, 0, 0}}, 0, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}});
  expect({{~0u, ~0u, ~0u, ~0u}}, ~0u, ~0u, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}});
  expect({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0,
         {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}});
}

// The expected blocks follow the layout that docs/numerics.md fixes, written out by hand.
TEST(Philox, KeyAndCounterLayout) {
  const NoiseStream stream{0x0123456789ABCDEF, 0x11223344, 0x00ABCDEF, 0x00654321, Purpose::grad_weight_dy};
  const PhiloxBlock drawn = random_block(stream, 0x12'89ABCDEF);
  const PhiloxBlock direct = philox4x32_10({{0x89ABCDEF, 0xABCDEF12, 0x11223344, 0x14654321}}, 0x89ABCDEF, 0x01234567);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(drawn.word[i], direct.word[i]);
  EXPECT_EQ(random_byte(drawn, 0), drawn.word[0] & 255);
  EXPECT_EQ(random_byte(drawn, 7), drawn.word[1] >> 24);
  EXPECT_EQ(random_byte(drawn, 14), (drawn.word[3] >> 16) & 255);
}

// Every field of a stream reaches the counter or the key on its own: no two of these share a block.
TEST(Philox, StreamsDiffer) {
  const NoiseStream base{7, 3, 5, 11, Purpose::forward_x};
  std::vector<NoiseStream> streams(7, base);
  streams[1].seed += 1;
  streams[2].seed += uint64_t{1} << 32;
  streams[3].step += 1;
  streams[4].micro_batch += 1;
  streams[5].tensor_id += 1;
  streams[6].purpose = Purpose::forward_w;
  std::set<std::vector<uint32_t>> blocks;
  for (const NoiseStream& stream : streams) {
    for (const uint64_t index : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32}) {
      const PhiloxBlock drawn = random_block(stream, index);
      blocks.insert({drawn.word[0], drawn.word[1], drawn.word[2], drawn.word[3]});
    }
  }
  EXPECT_EQ(blocks.size(), 21u);
}

}  // namespace
}  // namespace nibble
