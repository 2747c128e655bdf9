// What cuDNN says of attention on GPUs that are only described to it: the graphs are well formed, and there are engines
// for them. Needs cuDNN and no GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "model/ops/cudnn_attention.h"

namespace nibble {
namespace {

std::string description(const std::string& device) {
  std::ifstream file(std::string(NIBBLE_SOURCE_DIR) + "/tests/cuda/devices/" + device + ".json");
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

TEST_P(DescribedGpu, HasEnginesForAllThatIsAskedOfCudnn) {
  for (const int64_t head_dim : {64, 128}) {
    for (const auto& [query_heads, kv_heads] : {std::pair{32, 8}, {16, 16}, {12, 1}, {1, 1}}) {
      for (const auto& [sequences, length] : {std::pair{4, 4096}, {1, 32768}, {3, 1000}, {2, 257}, {1, 64}}) {
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

INSTANTIATE_TEST_SUITE_P(All, DescribedGpu, ::testing::Values("h100", "b200", "b300", "rtx5090"),
                         [](const auto& device) { return std::string(device.param); });

}  // namespace
}  // namespace nibble
