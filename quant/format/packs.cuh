// Packs: neighbouring numbers of a row that a kernel reads or writes in one memory access.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "quant/format/codec.h"

namespace nibble::cuda {

constexpr int access_bytes = 16;  // the widest access of one thread

template <class T>
constexpr int widest_pack = access_bytes / static_cast<int>(sizeof(T));

template <class T, int count>
struct alignas(sizeof(T) * count) Pack {
  T value[count];
};

// Load and store a pack. `address` must be aligned to the size of the pack.
template <int count, class T>
__device__ __forceinline__ Pack<T, count> load_pack(const T* address) {
  return *reinterpret_cast<const Pack<T, count>*>(address);
}
template <int count, class T>
__device__ __forceinline__ void store_pack(T* address, const Pack<T, count>& pack) {
  *reinterpret_cast<Pack<T, count>*>(address) = pack;
}

// Load a pack as FP32 numbers, and store FP32 numbers as a pack, rounded to nearest.
template <int count, class T>
__device__ __forceinline__ Pack<float, count> load_floats(const T* address) {
  const Pack<T, count> pack = load_pack<count>(address);
  Pack<float, count> values;
#pragma unroll
  for (int i = 0; i < count; ++i) values.value[i] = to_float(pack.value[i]);
  return values;
}
template <int count, class T>
__device__ __forceinline__ void store_floats(T* address, const Pack<float, count>& values) {
  Pack<T, count> pack;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    if constexpr (std::is_same_v<T, float>) {
      pack.value[i] = values.value[i];
    } else {
      pack.value[i] = bf16_nearest(values.value[i]);
    }
  }
  store_pack(address, pack);
}

// Returns whether rows of `row` elements that begin at these addresses can be cut into aligned packs of `count`.
inline bool in_packs(int count, size_t element_bytes, int64_t row, std::initializer_list<const void*> addresses) {
  bool aligned = row % count == 0;
  for (const void* address : addresses) {
    aligned = aligned && reinterpret_cast<uintptr_t>(address) % (static_cast<size_t>(count) * element_bytes) == 0;
  }
  return aligned;
}

// Calls function(constant) with std::integral_constant<int, count>, or with 1 where packs do not fit.
template <int count, class Function>
void with_pack(bool fits, Function&& function) {
  if (fits) {
    function(std::integral_constant<int, count>{});
  } else {
    function(std::integral_constant<int, 1>{});
  }
}

}  // namespace nibble::cuda
