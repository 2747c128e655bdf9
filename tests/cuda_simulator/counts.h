// How often the program asks the device for something. At the end of the program the counts are written to the file
// that NIBBLE_SIMULATED_COUNTS names, a line "name count" each.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <fstream>

namespace simulator {

struct Counts {
  uint64_t launches = 0;     // kernels, also those of a graph that is captured
  uint64_t copies = 0;       // cudaMemcpyAsync and cudaMemsetAsync
  uint64_t waits = 0;        // for everything that the device was given
  uint64_t event_waits = 0;  // for an event, after which the device may have more to do
  ~Counts() {
    const char* file = std::getenv("NIBBLE_SIMULATED_COUNTS");
    if (file == nullptr) return;
    std::ofstream(file) << "launches " << launches << "\ncopies " << copies << "\nwaits " << waits << "\nevent_waits "
                        << event_waits << "\n";
  }
};

}  // namespace simulator
