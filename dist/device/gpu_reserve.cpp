#include "dist/device/gpu_reserve.h"

#include <atomic>

namespace nibble {
namespace {

std::atomic<size_t> reserve_of_process{0};

}  // namespace

void set_gpu_reserve(size_t bytes) {
  reserve_of_process = bytes;
}

size_t gpu_reserve() {
  return reserve_of_process;
}

}  // namespace nibble
