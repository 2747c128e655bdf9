#include "quant/tensor/tensor_scan.h"

#include "dist/base/vectorize.h"
#include "dist/device/thread_pool.h"
#include "quant/format/codec.h"

namespace nibble::cpu {
namespace {

constexpr size_t span_grain = size_t{1} << 16;  // elements a chunk

NIBBLE_VECTORIZE void widen(const BFloat16* from, float* to, size_t count) {
  for (size_t i = 0; i < count; ++i) to[i] = to_float(from[i]);
}
NIBBLE_VECTORIZE void round_to_bf16(const float* from, BFloat16* to, size_t count) {
  for (size_t i = 0; i < count; ++i) to[i] = bf16_nearest(from[i]);
}

NIBBLE_VECTORIZE uint32_t amax_f32(const float* values, size_t count) {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t magnitude = bits_of(values[i]) & 0x7FFFFFFFu;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}
NIBBLE_VECTORIZE uint32_t amax_bf16(const BFloat16* values, size_t count) {
  uint16_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint16_t magnitude = values[i].bits & 0x7FFFu;
    largest = magnitude > largest ? magnitude : largest;
  }
  return static_cast<uint32_t>(largest) << 16;
}

NIBBLE_VECTORIZE int64_t non_finite_f32(const float* values, size_t count) {
  int64_t found = 0;
  for (size_t i = 0; i < count; ++i) found += (bits_of(values[i]) & 0x7F800000u) == 0x7F800000u ? 1 : 0;
  return found;
}
NIBBLE_VECTORIZE int64_t non_finite_bf16(const BFloat16* values, size_t count) {
  int64_t found = 0;
  for (size_t i = 0; i < count; ++i) found += (values[i].bits & 0x7F80u) == 0x7F80u ? 1 : 0;
  return found;
}

}  // namespace

void copy_converted(const Tensor& from, const Tensor& to) {
  parallel_for(static_cast<size_t>(from.elements()), span_grain, [&](size_t begin, size_t end) {
    if (from.dtype() == DType::bf16) {
      widen(from.as<BFloat16>() + begin, to.as<float>() + begin, end - begin);
    } else {
      round_to_bf16(from.as<float>() + begin, to.as<BFloat16>() + begin, end - begin);
    }
  });
}

void take_amax(const Tensor& source, SharedMax& amax) {
  parallel_for(static_cast<size_t>(source.elements()), span_grain, [&](size_t begin, size_t end) {
    amax.include(source.dtype() == DType::bf16 ? amax_bf16(source.as<BFloat16>() + begin, end - begin)
                                               : amax_f32(source.as<float>() + begin, end - begin));
  });
}

int64_t count_non_finite(const Tensor& tensor) {
  std::atomic<int64_t> found{0};
  parallel_for(static_cast<size_t>(tensor.elements()), span_grain, [&](size_t begin, size_t end) {
    const int64_t here = tensor.dtype() == DType::bf16 ? non_finite_bf16(tensor.as<BFloat16>() + begin, end - begin)
                                                       : non_finite_f32(tensor.as<float>() + begin, end - begin);
    found.fetch_add(here, std::memory_order_relaxed);
  });
  return found.load();
}

}  // namespace nibble::cpu
