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
enum class ScaleRule : uint8_t { amax, amax_up, four_over_six, four_over_six_mae, four_over_six_abs_max, search, rms };
constexpr auto enum_names(ScaleRule) {
  return std::to_array<EnumName<ScaleRule>>(
      {{ScaleRule::amax, "amax",
        "A block's largest magnitude becomes `range`; mxfp4, mxfp8: the power of two of OCP 6.3, which clips."},
       {ScaleRule::amax_up, "amax_up", "mxfp4, mxfp8: the next power of two that does not clip (arXiv:2506.08027)."},
       {ScaleRule::four_over_six, "four_over_six",
        "nvfp4: the block's maximum at 6 or at 4, whichever has the lower squared error (arXiv:2512.02010)."},
       {ScaleRule::four_over_six_mae, "four_over_six_mae", "The same, by the lower absolute error."},
       {ScaleRule::four_over_six_abs_max, "four_over_six_abs_max", "The same, by the lower largest error."},
       {ScaleRule::search, "search",
        "nvfp4: the E4M3 number of least squared error between 0.85 and 1.55 times the scale of `amax`."},
       {ScaleRule::rms, "rms",
        "nvfp4, mxfp4: 2.92247856/6 of the block's root mean square, which clips (QuEST, arXiv:2502.05003)."}});
}

enum class Rounding : uint8_t { nearest, stochastic, stochastic_published, ms_eden };
constexpr auto enum_names(Rounding) {
  return std::to_array<EnumName<Rounding>>(
      {{Rounding::nearest, "nearest", "To the nearest value, ties to even."},
       {Rounding::stochastic, "stochastic",
        "nvfp4, mxfp4: unbiased; (r + 0.5)/256 against the fraction, guard 16/17 (mxfp4: 3/4) on the scale."},
       {Rounding::stochastic_published, "stochastic_published",
        "nvfp4: NVIDIA's; r/256 and no guard, which is biased."},
       {Rounding::ms_eden, "ms_eden",
        "nvfp4: elements to nearest, and an unbiased correction in stochastically rounded block scales "
        "(arXiv:2601.22813); needs `rotate` with drawn `signs`."}});
}

// The elements over which MS-EDEN takes its correction, and the moment at which the tensor scale is known.
enum class EdenCorrection : uint8_t { post_hoc, post_hoc_published, per_16, per_128, per_128_published };
constexpr auto enum_names(EdenCorrection) {
  return std::to_array<EnumName<EdenCorrection>>(
      {{EdenCorrection::post_hoc, "post_hoc",
        "16 elements; FP32 pseudo-scales; the tensor's scale comes from the corrected ones: one pass over the data."},
       {EdenCorrection::post_hoc_published, "post_hoc_published",
        "The same with the arithmetic of the paper's kernel: 4-bit pseudo-scales, BF16 corrections."},
       {EdenCorrection::per_16, "per_16",
        "16 elements; the tensor's scale first, block scales to nearest, then corrected (Algorithm 1 of the paper)."},
       {EdenCorrection::per_128, "per_128",
        "The same with one correction for 8 blocks, each weighted by its squared scale."},
       {EdenCorrection::per_128_published, "per_128_published",
        "The same without the weights, as the paper emulates it."}});
}

// The signs of a rotation.
enum class Signs : uint8_t { fixed, step, micro_batch };
constexpr auto enum_names(Signs) {
  return std::to_array<EnumName<Signs>>({{Signs::fixed, "fixed", "One vector for the whole run."},
                                         {Signs::step, "step", "Drawn for each step."},
                                         {Signs::micro_batch, "micro_batch", "Drawn for each micro-batch."}});
}

// The elements that one FP32 scale covers.
enum class OuterScale : uint8_t { tensor, row_128 };
constexpr auto enum_names(OuterScale) {
  return std::to_array<EnumName<OuterScale>>({{OuterScale::tensor, "tensor", "The tensor."},
                                              {OuterScale::row_128, "1x128", "128 elements of a row (TetraJet-v2)."}});
}

enum class Source : uint8_t { original, saved };
constexpr auto enum_names(Source) {
  return std::to_array<EnumName<Source>>(
      {{Source::original, "original", "The high-precision tensor."},
       {Source::saved, "saved", "The values of the quantised operand that the forward GEMM used."}});
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

// Returns whether the format has one FP32 scale for all rows that depends on their values: nvfp4 without outer scales,
// and fp8.
bool has_tensor_scale(const OperandSpec& spec);

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
