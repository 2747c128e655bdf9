// How one operand of one GEMM is stored: format, blocks, scale rule, rounding, rotation, and which tensor it is made
// from. A recipe (quant/recipe/recipe.h) is six of these.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "dist/base/enum_names.h"
#include "quant/format/format.h"

namespace nibble {

// How the scale of a block is chosen.
enum class ScaleRule : uint8_t {
  amax,               // the block's largest magnitude falls on `range`; MX: the power of two of OCP 6.3, which clips
  amax_up,            // MX only: the next power of two that does not clip
  four_over_six,      // nvfp4: block maximum at 6 or at 4, whichever has the lower squared error ...
  four_over_six_mae,  // ... absolute error ...
  four_over_six_abs_max,  // ... largest error (arXiv:2512.02010)
  search,                 // nvfp4: the E4M3 number of least squared error between 0.85 and 1.55 times amax/6
  rms                     // nvfp4, mxfp4: 2.92247856/6 of the block's root mean square, which clips (QuEST)
};
constexpr auto enum_names(ScaleRule) {
  return std::to_array<EnumName<ScaleRule>>({{ScaleRule::amax, "amax"},
                                             {ScaleRule::amax_up, "amax_up"},
                                             {ScaleRule::four_over_six, "four_over_six"},
                                             {ScaleRule::four_over_six_mae, "four_over_six_mae"},
                                             {ScaleRule::four_over_six_abs_max, "four_over_six_abs_max"},
                                             {ScaleRule::search, "search"},
                                             {ScaleRule::rms, "rms"}});
}

enum class Rounding : uint8_t {
  nearest,               // ties to even
  stochastic,            // unbiased: (r + 0.5)/256 against the fraction, guard 16/17 (MX: 3/4) on the scale
  stochastic_published,  // NVIDIA's: r/256, no guard; nvfp4 only
  ms_eden  // nvfp4: elements to nearest, a correction in stochastically rounded block scales (arXiv:2601.22813)
};
constexpr auto enum_names(Rounding) {
  return std::to_array<EnumName<Rounding>>({{Rounding::nearest, "nearest"},
                                            {Rounding::stochastic, "stochastic"},
                                            {Rounding::stochastic_published, "stochastic_published"},
                                            {Rounding::ms_eden, "ms_eden"}});
}

// The elements over which MS-EDEN takes its correction, and the moment at which the tensor scale is known.
enum class EdenCorrection : uint8_t {
  post_hoc,  // per 16; FP32 pseudo-scales; the tensor scale comes from the corrected ones: one pass over the data
  post_hoc_published,  // post_hoc with the paper's kernel arithmetic: 4-bit pseudo-scales, BF16 corrections
  per_16,              // per 16; tensor scale first, block scales to nearest, then corrected (Algorithm 1 of the paper)
  per_128,             // per_16 with one correction for 8 blocks, each weighted by its squared scale
  per_128_published    // per_128 without the weights, as in the paper's emulation
};
constexpr auto enum_names(EdenCorrection) {
  return std::to_array<EnumName<EdenCorrection>>({{EdenCorrection::post_hoc, "post_hoc"},
                                                  {EdenCorrection::post_hoc_published, "post_hoc_published"},
                                                  {EdenCorrection::per_16, "per_16"},
                                                  {EdenCorrection::per_128, "per_128"},
                                                  {EdenCorrection::per_128_published, "per_128_published"}});
}

// The signs of a rotation: one fixed vector, or signs drawn anew for every step or micro-batch.
enum class Signs : uint8_t { fixed, step, micro_batch };
constexpr auto enum_names(Signs) {
  return std::to_array<EnumName<Signs>>(
      {{Signs::fixed, "fixed"}, {Signs::step, "step"}, {Signs::micro_batch, "micro_batch"}});
}

// The elements that one FP32 scale covers: the tensor, or 128 elements of a row.
enum class OuterScale : uint8_t { tensor, row_128 };
constexpr auto enum_names(OuterScale) {
  return std::to_array<EnumName<OuterScale>>({{OuterScale::tensor, "tensor"}, {OuterScale::row_128, "1x128"}});
}

enum class Source : uint8_t {
  original,  // the high-precision tensor
  saved      // the dequantised operand that the forward GEMM used
};
constexpr auto enum_names(Source) {
  return std::to_array<EnumName<Source>>({{Source::original, "original"}, {Source::saved, "saved"}});
}

constexpr int largest_history = 1024;  // steps

struct OperandSpec {
  Format format = Format::bf16;
  BlockShape block = BlockShape::row;
  ScaleRule scale = ScaleRule::amax;
  Rounding round = Rounding::nearest;
  EdenCorrection correction = EdenCorrection::post_hoc;  // ms_eden only
  float range = 0;    // nvfp4: where on the E2M1 grid the block's maximum falls; 0: the rule's default
  float ceiling = 0;  // nvfp4: the E4M3 scale of the block that holds the tensor's maximum; 0: the rule's default
  OuterScale outer = OuterScale::tensor;  // row_128: nvfp4, one FP32 scale for 128 elements of a row (TetraJet-v2)
  int history =
      0;  // fp8: the scale comes from the largest amax of so many steps before ("delayed"); 0: from this tensor
  int rotate = 0;     // points of the Hadamard rotation along the inner axis: 0, 16, 32, 64 or 128
  int rotations = 1;  // times it is applied, each with signs of its own
  Signs signs = Signs::fixed;
  Source from = Source::original;
  friend bool operator==(const OperandSpec&, const OperandSpec&) = default;
};

// These return the spec's range and ceiling, or the rule's default where the spec has 0 (nvfp4).
float range_of(const OperandSpec& spec);
float ceiling_of(const OperandSpec& spec);

// Returns the magnitude that the tensor's largest magnitude becomes when it is divided by the tensor scale (nvfp4).
float largest_of_tensor(const OperandSpec& spec);

// Returns whether the spec is MS-EDEN with a tensor scale taken from the corrected block scales.
bool corrects_post_hoc(const OperandSpec& spec);

// These return whether the operand depends on random bits: on those of its rounding, or on those of signs that change
// with every micro-batch or step.
bool has_rounding_noise(const OperandSpec& spec);
bool has_drawn_signs(const OperandSpec& spec);

// Returns the number of which the inner axis must be a multiple: that of a block, a rotation, an outer scale or a
// correction.
int64_t inner_multiple(const OperandSpec& spec);

std::string name_of(Format format, BlockShape block);  // "1x16", "16x16", "1x32"
// "nvfp4 1x16 search stochastic rotate 16"
std::string describe(const OperandSpec& spec);

// Throws bad_config, naming `where` ("recipe nvidia, grad_weight.dy"), for settings that contradict each other.
void check_supported(const OperandSpec& spec, std::string_view where);
// Throws bad_config, naming `where`, if blocks or rotations do not divide an operand of this shape.
void check_shape(const OperandSpec& spec, int64_t rows, int64_t inner, std::string_view where);

}  // namespace nibble
