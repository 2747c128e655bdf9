// Each rank computes on a GPU of its own, or all compute on the CPU.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "dist/ranks/communicator.h"

namespace nibble {

struct GpuChoice {
  std::array<uint8_t, 16> uuid{};  // all zero: this rank computes on the CPU
  std::string name;
};

// Collective, over host(). Every rank throws ExitCode::bad_config, naming two ranks, if they are on one machine and
// have the same GPU, or if one has a GPU and the other none.
void check_gpu_choices(Communicator& communicator, const GpuChoice& own);

}  // namespace nibble
