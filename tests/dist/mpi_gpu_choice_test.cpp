// Ranks that say which GPU they have chosen.
#include "dist/ranks/gpu_choice.h"

#include <gtest/gtest.h>

#include "dist/mpi_environment.h"

namespace nibble {
namespace {

// Returns the choice of the GPU with this number; 0 is the CPU.
GpuChoice gpu(int number) {
  GpuChoice choice{.name = "a GPU"};
  choice.uuid[15] = static_cast<uint8_t>(number);
  return choice;
}

// Returns the error that every rank gets; empty if the choice is accepted.
std::string refusal(int number) {
  try {
    check_gpu_choices(communicator(), gpu(number));
    return {};
  } catch (const AgreedError& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_config);
    EXPECT_FALSE(error.remedy().empty());
    return error.what();
  }
}

TEST(GpuChoice, DifferentGpusOrNoneAreAccepted) {
  EXPECT_EQ(refusal(communicator().rank() + 1), "");
  EXPECT_EQ(refusal(0), "");
}

TEST(GpuChoice, TheSameGpuTwiceIsRefusedOnEveryRank) {
  const int last = communicator().size() - 1;
  if (last == 0) GTEST_SKIP() << "one rank";
  // The last two ranks have the same.
  const std::string error = refusal(std::max(1, std::min(communicator().rank(), last - 1) + 1));
  const std::string text = "ranks " + std::to_string(last - 1) + " and " + std::to_string(last) +
                           " have the same GPU (a GPU, GPU-00000000-0000-0000-0000-0000000000";
  EXPECT_NE(error.find(text), std::string::npos) << error;
}

TEST(GpuChoice, AGpuBesideACpuIsRefusedOnEveryRank) {
  if (communicator().size() == 1) GTEST_SKIP() << "one rank";
  EXPECT_NE(refusal(communicator().rank()).find("rank 1 has a GPU and rank 0 has none"), std::string::npos);
}

}  // namespace
}  // namespace nibble
