// DType: the types of a Tensor's elements in memory. Format (quant/format/format.h) says how an operand is quantised;
// its codes and scales are tensors of u8.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dist/base/enum_names.h"

namespace nibble {

enum class DType : uint8_t { f32, bf16, u8, i32, i64 };  // u8 carries packed E2M1 codes and E4M3 scales
constexpr auto enum_names(DType) {
  return std::to_array<EnumName<DType>>({{DType::f32, "fp32"},
                                         {DType::bf16, "bf16"},
                                         {DType::u8, "uint8"},
                                         {DType::i32, "int32"},
                                         {DType::i64, "int64"}});
}

// The high half of an IEEE binary32 number. Conversions are in quant/format/codec.h.
struct BFloat16 {
  uint16_t bits = 0;
  friend constexpr bool operator==(BFloat16 a, BFloat16 b) { return a.bits == b.bits; }
};

constexpr size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16: return 2;
    case DType::u8: return 1;
    case DType::i64: return 8;
  }
  return 0;
}

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::u8;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::i64;
};

}  // namespace nibble
