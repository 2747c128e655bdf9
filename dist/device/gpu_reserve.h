// Memory of this process's GPU that arenas leave free, for what libraries take there after a plan. It is 0 at first.
#pragma once

#include <cstddef>

namespace nibble {

void set_gpu_reserve(size_t bytes);
size_t gpu_reserve();

}  // namespace nibble
