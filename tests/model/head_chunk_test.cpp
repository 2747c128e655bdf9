#include "model/objectives/head.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(HeadChunk, ChunksOfAGpuHoldTwoGibibytesOfLogitsAtMost) {
  EXPECT_EQ(head_chunk_tokens(2048, 50304, DeviceKind::cuda), 2048) << "the whole micro-batch";
  EXPECT_EQ(head_chunk_tokens(8192, 50304, DeviceKind::cuda), 8192);
  EXPECT_EQ(head_chunk_tokens(32768, 32000, DeviceKind::cuda), 8192) << "the most";
  EXPECT_EQ(head_chunk_tokens(12288, 50304, DeviceKind::cuda), 6144) << "equally long";
  EXPECT_EQ(head_chunk_tokens(8192, 131072, DeviceKind::cuda), 4096) << "a large vocabulary";
  EXPECT_EQ(head_chunk_tokens(8192, int64_t{1} << 30, DeviceKind::cuda), 256) << "the least";
}

TEST(HeadChunk, ChunksAreTheFewestThatStayInCacheAndAboutEquallyLong) {
  EXPECT_EQ(head_chunk_tokens(8192, 4096), 512);
  EXPECT_EQ(head_chunk_tokens(2048, 50304), 256) << "the least";
  EXPECT_EQ(head_chunk_tokens(2048, 256), 2048) << "a small vocabulary";
  EXPECT_EQ(head_chunk_tokens(16, 50304), 16) << "few tokens";
  EXPECT_EQ(head_chunk_tokens(272, 50304), 144);
  for (int64_t tokens = 16; tokens < 3000; tokens += 16) {
    const int64_t chunk = head_chunk_tokens(tokens, 50304);
    ASSERT_EQ(chunk % 16, 0) << tokens;
    ASSERT_LE(chunk, 256) << tokens;
    ASSERT_LT(div_ceil(tokens, chunk) * chunk - tokens, 16 * div_ceil(tokens, chunk)) << "little is padded";
  }
}

}  // namespace
}  // namespace nibble
