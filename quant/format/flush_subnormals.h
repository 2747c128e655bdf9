// While an object of class FlushSubnormals lives, its thread treats subnormal inputs as zero and flushes subnormal
// results to zero. The BF16 dot-product instructions always do this; all other instructions must be told to.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace nibble {

class FlushSubnormals {
 public:
#if defined(__x86_64__)
  FlushSubnormals() : saved_(_mm_getcsr()) {
    _mm_setcsr(saved_ | flush_to_zero | subnormals_are_zero);
  }
  ~FlushSubnormals() {
    _mm_setcsr(saved_);
  }
#elif defined(__aarch64__)
  FlushSubnormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | flush_to_zero));
  }
  ~FlushSubnormals() {
    asm volatile("msr fpcr, %0" ::"r"(saved_));
  }
#else
#error "state how this processor takes subnormal numbers for zero"
#endif
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
#if defined(__aarch64__)
  static constexpr uint64_t flush_to_zero = uint64_t{1} << 24;
  uint64_t saved_ = 0;
#else
  static constexpr uint32_t flush_to_zero = 1U << 15;
  static constexpr uint32_t subnormals_are_zero = 1U << 6;
  uint32_t saved_;
#endif
};

}  // namespace nibble
