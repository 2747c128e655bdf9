// The formats in which numbers are stored: their elements, and the blocks of elements that share a scale.
#pragma once

#include <cstdint>

#include "dist/base/enum_names.h"

namespace nibble {

// nvfp4: E2M1 elements, an E4M3 scale a block of 16, an FP32 scale a tensor. mxfp4, mxfp8: E2M1, E4M3 or E5M2 elements,
// an E8M0 scale a block of 32 (OCP Microscaling Formats 1.0). fp8: E4M3 or E5M2 elements, an FP32 scale a tensor.
enum class Format : uint8_t { f32, bf16, nvfp4, mxfp4, mxfp8_e4m3, mxfp8_e5m2, fp8_e4m3, fp8_e5m2 };
constexpr auto enum_names(Format) {
  return std::to_array<EnumName<Format>>(
      {{Format::f32, "fp32", "Not quantised: 32 bits."},
       {Format::bf16, "bf16", "Not quantised: 16 bits."},
       {Format::nvfp4, "nvfp4", "E2M1 elements, an E4M3 scale for 16 of them, an FP32 scale for the tensor."},
       {Format::mxfp4, "mxfp4", "E2M1 elements, a power of two for 32 of them (OCP Microscaling Formats 1.0)."},
       {Format::mxfp8_e4m3, "mxfp8_e4m3", "E4M3 elements, a power of two for 32 of them."},
       {Format::mxfp8_e5m2, "mxfp8_e5m2", "E5M2 elements, a power of two for 32 of them."},
       {Format::fp8_e4m3, "fp8_e4m3", "E4M3 elements, an FP32 scale for the tensor."},
       {Format::fp8_e5m2, "fp8_e5m2", "E5M2 elements, an FP32 scale for the tensor."}});
}

// The number formats of a format's elements and of its block scales. As tensors their codes have the DType u8.
enum class ElementCode : uint8_t { none, e2m1, e4m3, e5m2 };
enum class ScaleCode : uint8_t { none, e4m3, e8m0 };

struct FormatTraits {
  ElementCode element = ElementCode::none;
  ScaleCode block_scale = ScaleCode::none;
  int block = 0;      // elements that share a block scale; 0: there are none
  float largest = 0;  // largest magnitude of an element
  int code_bits = 0;  // bits of an element's code; 0: not quantised
};

constexpr FormatTraits traits_of(Format format) {
  switch (format) {
    case Format::f32:
    case Format::bf16: return {};
    case Format::nvfp4: return {ElementCode::e2m1, ScaleCode::e4m3, 16, 6.0F, 4};
    case Format::mxfp4: return {ElementCode::e2m1, ScaleCode::e8m0, 32, 6.0F, 4};
    case Format::mxfp8_e4m3: return {ElementCode::e4m3, ScaleCode::e8m0, 32, 448.0F, 8};
    case Format::mxfp8_e5m2: return {ElementCode::e5m2, ScaleCode::e8m0, 32, 57344.0F, 8};
    case Format::fp8_e4m3: return {ElementCode::e4m3, ScaleCode::none, 0, 448.0F, 8};
    case Format::fp8_e5m2: return {ElementCode::e5m2, ScaleCode::none, 0, 57344.0F, 8};
  }
  return {};
}
constexpr bool is_quantized(Format format) {
  return traits_of(format).code_bits != 0;
}

// The widths of every linear layer and the number of its tokens are multiples of this: an operand is quantised along
// either of its axes, in blocks of 16 elements or squares of 16 x 16.
constexpr int64_t block_rows = 16;

// The elements that share a block scale: those of one row ("1x16", or "1x32" for MX), or, for weights in nvfp4, those
// of a square ("16x16"): W and its transpose then hold the same values.
enum class BlockShape : uint8_t { row, square };

}  // namespace nibble
