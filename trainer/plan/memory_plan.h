// What the ranks of a run take of memory and disk, from the dry run that the run itself makes (trainer/memory/,
// model/language_model.h), without data, other ranks or the device.
#pragma once

#include <cstdint>
#include <vector>

#include "dist/zero/layout.h"
#include "model/language_model.h"
#include "trainer/config/run_config.h"
#include "trainer/plan/device_table.h"

namespace nibble {

struct MemoryPlan {
  std::vector<MemoryLine> lines;  // of rank 0, as the line `memory` of a run adds them up
  uint64_t total = 0;             // of the lines
  uint64_t on_host = 0;           // of the total: in memory of the CPU, though the run is on a GPU
  int largest_rank = 0;           // the rank that takes most of its device
  uint64_t largest = 0;           // what it takes
  uint64_t reserve = 0;           // of a GPU: kept free for libraries, and for the model after a late switch
  uint64_t needed = 0;            // of a GPU: largest + reserve; of the CPU: all ranks together
  uint64_t available = 0;         // memory of the GPU, or of this machine
  uint64_t checkpoint_bytes = 0;  // the files of all ranks, index and manifest

  bool fits() const { return needed <= available; }
  uint64_t missing() const { return fits() ? 0 : needed - available; }
};

// The model's vocabulary must be known. `device` is null for this machine's CPU, on which all ranks are. Threads are
// those of the process (dist/device/thread_pool.h). Throws what making the run's objects throws.
MemoryPlan plan_memory(const RunConfig& config, int ranks, const PlannedDevice* device);

}  // namespace nibble
