// Passes over whole tensors in the order of memory. Internal to quant.
#pragma once

#include <atomic>
#include <cstdint>

#include "quant/tensor/tensor.h"

namespace nibble::cpu {

// The largest of the values that many threads include. Their order does not matter.
class SharedMax {
 public:
  void include(uint32_t value) {
    uint32_t seen = largest_.load(std::memory_order_relaxed);
    while (value > seen && !largest_.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
    }
  }
  uint32_t value() const { return largest_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint32_t> largest_{0};
};

// Includes the bits of the source's largest magnitude. As integers the bits of magnitudes are ordered, infinity and NaN
// last.
void take_amax(const Tensor& source, SharedMax& amax);

int64_t count_non_finite(const Tensor& tensor);

// Copies between f32 and bf16 and rounds to nearest.
void copy_converted(const Tensor& from, const Tensor& to);

}  // namespace nibble::cpu
