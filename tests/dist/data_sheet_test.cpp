// The peaks of GPUs by name. The names are those that CUDA gives.
#include "dist/device/data_sheet.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

struct Named {
  const char* name;
  double teraflops;
};

TEST(DataSheet, GivesEachChipItsOwnPeak) {
  const Named all[] = {
      {"NVIDIA H100 80GB HBM3", 989.4},
      {"NVIDIA H100 PCIe", 756},
      {"NVIDIA H100 NVL", 835.5},
      {"NVIDIA H200", 989.4},
      {"NVIDIA H200 NVL", 835.5},
      {"NVIDIA GH200 480GB", 989.4},
      {"NVIDIA GH200 144G HBM3e", 989.4},
      {"NVIDIA H800", 989.4},
      {"NVIDIA H800 PCIe", 756},
      {"NVIDIA H20", 148},
      {"NVIDIA H20-3e", 148},
      {"NVIDIA B100", 1750},
      {"NVIDIA B200", 2250},
      {"NVIDIA B300 SXM6 AC", 2250},
      {"NVIDIA GB200", 2500},
      {"NVIDIA GB300", 2500},
      {"NVIDIA A100-SXM4-80GB", 312},
      {"NVIDIA A100-PCIE-40GB", 312},
      {"NVIDIA A100 80GB PCIe", 312},
      {"NVIDIA A800-SXM4-80GB", 312},
      {"NVIDIA A30", 165},
      {"NVIDIA A40", 149.7},
      {"NVIDIA A10", 125},
      {"NVIDIA L4", 121},
      {"NVIDIA L20", 119.5},
      {"NVIDIA L40", 181},
      {"NVIDIA L40S", 362},
      {"NVIDIA RTX A6000", 154.8},
      {"NVIDIA RTX 6000 Ada Generation", 364.2},
      {"NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 503.8},
      {"NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 438.9},
      {"NVIDIA GeForce RTX 3090", 71},
      {"NVIDIA GeForce RTX 4090", 165.2},
      {"NVIDIA GeForce RTX 5070", 61.7},
      {"NVIDIA GeForce RTX 5070 Ti", 87.9},
      {"NVIDIA GeForce RTX 5080", 112.6},
      {"NVIDIA GeForce RTX 5090", 209.5},
  };
  for (const Named& gpu : all) EXPECT_DOUBLE_EQ(data_sheet_bf16_flops(gpu.name), 1e12 * gpu.teraflops) << gpu.name;
}

// A wrong peak would make MFU wrong, so there is none where the name tells too little.
TEST(DataSheet, DoesNotGuess) {
  for (const char* name :
       {"", "simulated GPU", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 5090 Laptop GPU",
        "NVIDIA GeForce RTX 5090 D", "NVIDIA GeForce RTX 4090 D", "NVIDIA H100 64GB HBM2", "NVIDIA A10G", "NVIDIA A16",
        "NVIDIA A2", "NVIDIA GB10", "NVIDIA Thor", "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        "NVIDIA RTX PRO 4500 Blackwell", "Tesla V100-SXM2-32GB", "Quadro RTX 6000"}) {
    EXPECT_EQ(data_sheet_bf16_flops(name), 0) << name;
  }
}

}  // namespace
}  // namespace nibble
