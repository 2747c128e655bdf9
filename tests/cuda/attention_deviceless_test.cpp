// Asks cuDNN about attention on GPUs that are only described to it: the graphs are well formed, and there are engines
// for them. Needs cuDNN and no GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "model/ops/attention/cudnn_attention.h"

namespace nibble {
namespace {

std::string description(const std::string& device) {
  std::ifstream file(std::string(NIBBLE_SOURCE_DIR "/tests/cuda/devices/") + device + ".json");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_FALSE(text.str().empty()) << device;
  return text.str();
}

class DescribedGpu : public ::testing::TestWithParam<const char*> {
 protected:
  static cuda::CudnnAttentionSupport support(const AttentionShape& shape) {
    return cuda::cudnn_attention_support(shape, description(GetParam()));
  }
};

// Both passes have engines for every head_dim that is a multiple of 8 up to 128; others are what cuDNN makes of them.
TEST_P(DescribedGpu, HasEnginesForHeadsUpTo128) {
  for (int64_t head_dim = 8; head_dim <= 128; head_dim += 8) {
    for (const auto& [query_heads, kv_heads] : {std::pair{32, 8}, {16, 16}, {12, 1}, {1, 1}}) {
      for (const auto& [sequences, length] : {std::pair{4, 4096}, {1, 32768}, {3, 1000}, {2, 257}, {1, 64}}) {
        const bool usual = head_dim == 64 || head_dim == 128;
        if (!usual && length != 4096 && length != 257) continue;
        const AttentionShape shape{sequences, length, query_heads, kv_heads, head_dim};
        SCOPED_TRACE(::testing::Message() << sequences << " x " << length << ", heads " << query_heads << "/"
                                          << kv_heads << ", head_dim " << head_dim);
        const cuda::CudnnAttentionSupport answer = support(shape);
        EXPECT_EQ(answer.forward.refusal, "");
        EXPECT_FALSE(answer.forward.engines.empty());
        EXPECT_EQ(answer.backward.refusal, "");
        EXPECT_FALSE(answer.backward.engines.empty());
      }
    }
  }
}

// A mask of documents has engines for both passes on compute capability 9.0, and for the forward pass only elsewhere:
// there the exact kernels run both.
TEST_P(DescribedGpu, MasksDocumentsOnHopper) {
  const bool hopper = std::string(GetParam()) == "h100";
  for (const int64_t head_dim : {64, 128}) {
    for (const auto& [sequences, length, query_heads, kv_heads] :
         {std::tuple{4, 4096, 32, 8}, {3, 1000, 16, 16}, {2, 257, 12, 1}, {1, 64, 1, 1}}) {
      const cuda::CudnnAttentionSupport answer =
          support({sequences, length, query_heads, kv_heads, head_dim, /*document_mask=*/true});
      EXPECT_EQ(answer.forward.refusal, "") << length;
      EXPECT_EQ(answer.backward.refusal.empty(), hopper) << length << ": " << answer.backward.refusal;
    }
  }
}

// cuDNN refuses heads that are no multiple of 8. Those of more than 128 have a backward pass up to 256, on compute
// capability 9.0 only.
TEST_P(DescribedGpu, RefusesOtherHeads) {
  for (const int64_t head_dim : {4, 20, 100}) {
    const cuda::CudnnAttentionSupport odd = support({4, 4096, 32, 8, head_dim});
    EXPECT_NE(odd.forward.refusal, "") << head_dim;
    EXPECT_NE(odd.backward.refusal, "") << head_dim;
  }
  const bool hopper = std::string(GetParam()) == "h100";
  for (const int64_t head_dim : {136, 192, 256, 264}) {
    const cuda::CudnnAttentionSupport answer = support({4, 4096, 32, 8, head_dim});
    EXPECT_EQ(answer.forward.refusal, "") << head_dim;
    EXPECT_EQ(answer.backward.refusal.empty(), hopper && head_dim <= 256) << head_dim << answer.backward.refusal;
  }
}

// The fast deterministic backward pass of compute capability 10.x, which cuDNN accepts, but does not propose.
TEST_P(DescribedGpu, HasItsHiddenEngineFirst) {
  const cuda::CudnnAttentionSupport answer = support({4, 4096, 32, 8, 128});
  const bool hidden = GetParam()[0] == 'b' && answer.version >= 91800 && answer.version < 92300;
  EXPECT_FALSE(answer.forward.chosen_by_hand);
  EXPECT_EQ(answer.backward.chosen_by_hand, hidden);
  if (hidden) {
    EXPECT_EQ(answer.backward.engines.front(), 5);
    EXPECT_GT(answer.backward.engines.size(), 1U) << "the heuristic has an engine to fall back on";
  }
}

TEST(CudnnAttention, DescriptionsAreChecked) {
  EXPECT_ANY_THROW(cuda::cudnn_attention_support({4, 4096, 32, 8, 128}, R"({"deviceVer": 900})"));
}

INSTANTIATE_TEST_SUITE_P(All, DescribedGpu, ::testing::Values("h100", "b200", "b300", "rtx5090"),
                         [](const auto& device) { return std::string(device.param); });

}  // namespace
}  // namespace nibble
