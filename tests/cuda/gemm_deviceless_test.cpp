// Asks cuDNN about the graphs of nvfp4 GEMMs on GPUs that it only knows from a description: no GPU is needed.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "quant/gemm/cuda/cudnn_gemm.h"

namespace nibble {
namespace {

using cuda::CudnnGemmShape;

std::string description_of(const std::string& name) {
  const std::string path = std::string(NIBBLE_SOURCE_DIR "/tests/cuda/devices/") + name + ".json";
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_FALSE(text.str().empty()) << path;
  return text.str();
}

// The shapes of the forward pass, of both gradients, and ragged extents.
constexpr CudnnGemmShape shapes[] = {
    {4096, 4096, 4096, DType::bf16, false}, {4096, 11008, 4096, DType::f32, false},
    {4096, 4096, 8192, DType::f32, true},   {1000, 4096, 2048, DType::bf16, false},
    {128, 768, 160, DType::f32, true},      {136, 144, 192, DType::bf16, false},
};

class DevicelessGemm : public testing::TestWithParam<const char*> {};

TEST_P(DevicelessGemm, EveryGraphIsAcceptedOnBlackwell) {
  const std::string device = description_of(GetParam());
  for (const CudnnGemmShape& shape : shapes) {
    EXPECT_GT(cuda::cudnn_gemm_configurations(shape, device), 0)
        << shape.m << " x " << shape.n << " x " << shape.k << (shape.accumulate ? " added" : "");
  }
  EXPECT_EQ(cuda::cudnn_gemm_configurations({128, 128, 48, DType::f32, false}, device), 0);
}
INSTANTIATE_TEST_SUITE_P(Blackwell, DevicelessGemm, testing::Values("b200", "b300", "rtx5090"));

TEST(DevicelessGemmOnHopper, NoneIsAccepted) {
  const std::string device = description_of("h100");
  for (const CudnnGemmShape& shape : shapes) EXPECT_EQ(cuda::cudnn_gemm_configurations(shape, device), 0);
}

}  // namespace
}  // namespace nibble
