#include "quant/isa/kernel_table.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

constexpr int a = 0, b = 0, c = 0;

TEST(KernelTable, TakesTheHighestLevelNotAboveTheOneAskedFor) {
  constexpr KernelTable<const int*> kernels = {.portable = &a, .avx512 = &b, .avx512_bf16 = &c};
  EXPECT_EQ(kernels.at(InstructionSet::portable), &a);
  EXPECT_EQ(kernels.at(InstructionSet::avx2), &a);
  EXPECT_EQ(kernels.at(InstructionSet::avx512), &b);
  EXPECT_EQ(kernels.at(InstructionSet::avx512_vnni), &b);
  EXPECT_EQ(kernels.at(InstructionSet::avx512_bf16), &c);
}

TEST(KernelTable, SaysThatThereAreNone) {
  constexpr KernelTable<const int*> kernels = {.avx512 = &b};
  EXPECT_EQ(kernels.at(InstructionSet::portable), nullptr);
  EXPECT_EQ(kernels.at(InstructionSet::avx2), nullptr);
  EXPECT_EQ(kernels.at(InstructionSet::avx512_vnni), &b);
}

}  // namespace
}  // namespace nibble
