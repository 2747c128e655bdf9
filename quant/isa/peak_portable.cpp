// The limit of code for the compiler's baseline, which has no fused multiply-add.
#include "quant/isa/peak_kernels.h"

namespace nibble::cpu {
namespace {

constexpr int lanes = 4;
constexpr int chains = 10;
using Vector = float __attribute__((vector_size(16)));

void multiply_and_add(int64_t steps) {
  Vector sums[chains] = {};
  Vector factor = {0.5F, 0.5F, 0.5F, 0.5F};
  for (int64_t step = 0; step < steps; ++step) {
    __asm__ volatile("" : "+m"(factor));
#pragma GCC unroll 10
    for (Vector& sum : sums) sum = sum * factor + factor;
  }
  for (Vector& sum : sums) __asm__ volatile("" : "+m"(sum));
}

}  // namespace

const PeakTable peak_portable = {{2.0 * lanes * chains, multiply_and_add}, {}, {}, {}};

}  // namespace nibble::cpu
