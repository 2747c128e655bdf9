#include "quant/recipe/operand_spec.h"

#include <fmt/format.h>

#include <algorithm>

#include "dist/base/error.h"
#include "quant/recipe/operand_table.h"

namespace nibble {

std::string name_of(Format format, BlockShape block) {
  const int size = traits_of(format).block;
  return fmt::format("{}x{}", block == BlockShape::row ? 1 : size, size);
}

std::string describe(const OperandSpec& spec) {
  std::string text(name_of(spec.format));
  if (!is_quantized(spec.format)) return text;
  for (const OperandKey& key : operand_keys()) {
    if (key.is_described(spec)) text += fmt::format(" {}{}", key.word, key.text(spec));
  }
  return text;
}

float range_of(const OperandSpec& spec) {
  if (spec.range != 0) return spec.range;
  // Quartet II: MS-EDEN's error is lowest at 0.93 of the unbiased range with a guard.
  return spec.round == Rounding::ms_eden ? 6.0F * 16.0F / 17.0F / 0.93F : 6.0F;
}

float ceiling_of(const OperandSpec& spec) {
  if (spec.ceiling != 0) return spec.ceiling;
  // The lower ceiling leaves room for a scale that is enlarged afterwards, by 6/4, by 1.55, or by the correction.
  const bool enlarges = spec.scale == ScaleRule::search || spec.scale == ScaleRule::four_over_six ||
                        spec.scale == ScaleRule::four_over_six_mae || spec.scale == ScaleRule::four_over_six_abs_max ||
                        spec.scale == ScaleRule::rms;
  const bool corrects = spec.round == Rounding::ms_eden && spec.correction != EdenCorrection::post_hoc;
  return enlarges || corrects ? 256.0F : 448.0F;
}

float largest_of_tensor(const OperandSpec& spec) {
  const float largest = range_of(spec) * ceiling_of(spec);
  return spec.round == Rounding::stochastic ? largest * 16.0F / 17.0F : largest;
}

bool corrects_post_hoc(const OperandSpec& spec) {
  return spec.round == Rounding::ms_eden &&
         (spec.correction == EdenCorrection::post_hoc || spec.correction == EdenCorrection::post_hoc_published);
}

bool has_tensor_scale(const OperandSpec& spec) {
  return is_quantized(spec.format) && traits_of(spec.format).block_scale != ScaleCode::e8m0 &&
         spec.outer == OuterScale::tensor;
}

bool has_rounding_noise(const OperandSpec& spec) {
  return is_quantized(spec.format) && spec.round != Rounding::nearest;
}

bool has_drawn_signs(const OperandSpec& spec) {
  return spec.rotate != 0 && spec.signs != Signs::fixed;
}

int64_t inner_multiple(const OperandSpec& spec) {
  int multiple = std::max({1, traits_of(spec.format).block, spec.rotate});
  const bool eden_128 = spec.round == Rounding::ms_eden && (spec.correction == EdenCorrection::per_128 ||
                                                            spec.correction == EdenCorrection::per_128_published);
  if (spec.outer == OuterScale::row_128 || eden_128) multiple = std::max(multiple, 128);
  return multiple;
}

void check_supported(const OperandSpec& spec, std::string_view where) {
  if (const auto fault = find_fault(spec)) {
    throw Error(ExitCode::bad_config, fmt::format("{}: {}", where, fault->what), fault->remedy);
  }
}

void check_shape(const OperandSpec& spec, int64_t rows, int64_t inner, std::string_view where) {
  const int64_t multiple = inner_multiple(spec);
  if (inner % multiple != 0) {
    throw Error(ExitCode::bad_config,
                fmt::format("{}: {} needs an inner axis that is a multiple of {}, this one is {}", where,
                            describe(spec), multiple, inner),
                "choose model sizes and tokens a micro-batch that are multiples of it, or a shorter rotation or block");
  }
  if (spec.block == BlockShape::square && rows % 16 != 0) {
    throw Error(ExitCode::bad_config,
                fmt::format("{}: {} needs rows in sixteens, there are {}", where, describe(spec), rows),
                "choose a model whose sizes are multiples of 16, or block: 1x16");
  }
}

}  // namespace nibble
