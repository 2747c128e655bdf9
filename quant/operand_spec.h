// How one operand of one GEMM is stored: format, blocks, scale rule, rounding, rotation, and which tensor it is made
// from. A recipe (quant/recipe.h) is six of these.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace nibble {

enum class Format : uint8_t { f32, bf16, nvfp4 };

// Which elements share a block scale. `block_16x16` is for weights: W and its transpose then hold the same values.
enum class BlockShape : uint8_t { block_1x16, block_16x16 };

enum class Rounding : uint8_t {
  nearest,              // ties to even
  stochastic,           // unbiased: (r + 0.5)/256 against the fraction, guard 16/17 on the scale (docs/numerics.md)
  stochastic_published  // NVIDIA's: r/256, no guard
};

enum class Source : uint8_t {
  original,  // the high-precision tensor
  saved      // the dequantised operand that the forward GEMM used
};

struct OperandSpec {
  Format format = Format::bf16;
  BlockShape block = BlockShape::block_1x16;
  Rounding round = Rounding::nearest;
  int rotate = 0;  // points of the Hadamard rotation along the inner axis; 0 or 16 (fixed sign mask 0xD7E8)
  Source from = Source::original;
  friend bool operator==(const OperandSpec&, const OperandSpec&) = default;
};

// The names that recipes use: "nvfp4", "1x16", "stochastic_published", "saved".
std::string_view name_of(Format format);
std::string_view name_of(BlockShape block);
std::string_view name_of(Rounding round);
std::string_view name_of(Source source);
// "nvfp4 1x16 stochastic rotate 16"
std::string describe(const OperandSpec& spec);

// Throws bad_config, naming `where` ("recipe nvidia, grad_weight.dy"), when this version cannot make such an operand.
void check_supported(const OperandSpec& spec, std::string_view where);

}  // namespace nibble
