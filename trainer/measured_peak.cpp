#include "trainer/measured_peak.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "quant/codec.h"
#include "quant/gemm.h"

namespace nibble {

double measured_peak_flops() {
  constexpr int64_t size = 512;
  constexpr int repetitions = 8;
  using Clock = std::chrono::steady_clock;
  std::vector<BFloat16> values(static_cast<size_t>(size * size), bf16_nearest(0.5F));
  std::vector<float> product(values.size());
  const Tensor matrix = tensor_of(std::span<BFloat16>(values), {size, size});
  const QuantizedTensor operand{.format = Format::bf16,
                                .rows = size,
                                .inner = size,
                                .values = matrix,
                                .transposed = false,
                                .block_scales = {},
                                .tensor_scale = {}};
  double best_seconds = 1e30;
  for (int i = 0; i < repetitions; ++i) {
    const auto start = Clock::now();
    gemm({.a = operand, .b = operand, .output = tensor_of(std::span<float>(product), {size, size})});
    best_seconds = std::min(best_seconds, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return 2.0 * static_cast<double>(size * size * size) / best_seconds;
}

}  // namespace nibble
