#include "quant/recipe/operand_spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <type_traits>

#include "dist/base/error.h"

namespace nibble {

std::string name_of(Format format, BlockShape block) {
  const int size = traits_of(format).block;
  return fmt::format("{}x{}", block == BlockShape::row ? 1 : size, size);
}

std::string describe(const OperandSpec& spec) {
  std::string text(name_of(spec.format));
  if (!is_quantized(spec.format)) return text;
  if (traits_of(spec.format).block != 0) text += " " + name_of(spec.format, spec.block);
  if (spec.scale != ScaleRule::amax) text += fmt::format(" {}", name_of(spec.scale));
  text += fmt::format(" {}", name_of(spec.round));
  if (spec.round == Rounding::ms_eden) text += fmt::format(" {}", name_of(spec.correction));
  if (spec.range != 0) text += fmt::format(" range {}", spec.range);
  if (spec.ceiling != 0) text += fmt::format(" ceiling {}", spec.ceiling);
  if (spec.outer != OuterScale::tensor) text += fmt::format(" outer {}", name_of(spec.outer));
  if (spec.history != 0) text += fmt::format(" history {}", spec.history);
  if (spec.rotate != 0) {
    text += fmt::format(" rotate {}", spec.rotate);
    if (spec.rotations != 1) text += fmt::format(" x {}", spec.rotations);
    text += fmt::format(" signs {}", name_of(spec.signs));
  }
  if (spec.from != Source::original) text += fmt::format(" from {}", name_of(spec.from));
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
  // Every quantize() calls this, so a message is formatted only where one is needed.
  const auto require = [&](bool holds, const auto& what, std::string_view remedy) {
    if (holds) return;
    if constexpr (std::is_invocable_v<decltype(what)>) {
      throw Error(ExitCode::bad_config, fmt::format("{}: {}", where, what()), std::string(remedy));
    } else {
      throw Error(ExitCode::bad_config, fmt::format("{}: {}", where, what), std::string(remedy));
    }
  };
  const std::string_view format = name_of(spec.format);
  const OperandSpec plain{.format = spec.format, .from = spec.from};
  if (!is_quantized(spec.format)) {
    require(
        spec == plain, [&] { return fmt::format("{} is not quantised: it has no scale, round or rotate", format); },
        "remove those keys, or choose a quantised format");
    return;
  }
  const FormatTraits traits = traits_of(spec.format);
  const bool nvfp4 = spec.format == Format::nvfp4;
  const bool mx = traits.block_scale == ScaleCode::e8m0;
  const auto only = [&](bool uses, bool allowed, std::string_view setting, std::string_view value,
                        std::string_view where_allowed) {
    if (!uses || allowed) return;
    require(
        false, [&] { return fmt::format("{} does not know {}{}", format, setting, value); },
        fmt::format("it is for {}", where_allowed));
  };
  only(spec.block == BlockShape::square, nvfp4, "square blocks", "", "nvfp4");
  only(spec.scale == ScaleRule::amax_up, mx, "scale: ", "amax_up", "mxfp4 and mxfp8");
  only(spec.scale == ScaleRule::rms, traits.element == ElementCode::e2m1, "scale: ", "rms", "nvfp4 and mxfp4");
  const bool chooses =
      spec.scale != ScaleRule::amax && spec.scale != ScaleRule::amax_up && spec.scale != ScaleRule::rms;
  only(chooses, nvfp4, "scale: ", name_of(spec.scale), "nvfp4");
  only(spec.round == Rounding::stochastic, traits.element == ElementCode::e2m1, "round: ", "stochastic",
       "nvfp4 and mxfp4");
  only(spec.round == Rounding::stochastic_published || spec.round == Rounding::ms_eden, nvfp4,
       "round: ", name_of(spec.round), "nvfp4");
  only(spec.range != 0 || spec.ceiling != 0, nvfp4, "range and ceiling", "", "nvfp4");
  only(spec.outer != OuterScale::tensor, nvfp4, "outer: 1x128", "", "nvfp4");
  only(spec.history != 0, traits.block == 0, "history", "", "fp8_e4m3 and fp8_e5m2");

  require(
      spec.rotate == 0 || spec.rotate == 16 || spec.rotate == 32 || spec.rotate == 64 || spec.rotate == 128,
      [&] { return fmt::format("a rotation of {} points is not supported", spec.rotate); },
      "set rotate: 0, 16, 32, 64 or 128");
  require(
      spec.rotations == 1 || (spec.rotations == 2 && spec.rotate != 0),
      [&] { return fmt::format("{} rotations of {} points", spec.rotations, spec.rotate); },
      "set rotations: 1 or 2, and rotate to the number of points");
  require(spec.rotate != 0 || spec.signs == Signs::fixed, "signs are drawn, but nothing is rotated",
          "remove signs, or set rotate");
  require(spec.block == BlockShape::row || spec.rotate == 0, "square blocks are rotated",
          "a rotation acts along the inner axis only: use block: 1x16, or rotate: 0");
  require(
      spec.history >= 0 && spec.history <= largest_history,
      [&] { return fmt::format("a history of {} steps", spec.history); }, "use 0 to 1024");
  const bool eden = spec.round == Rounding::ms_eden;
  require(eden || spec.correction == EdenCorrection::post_hoc, "a correction, but no ms_eden", "set round: ms_eden");
  require(!eden || (spec.scale == ScaleRule::amax && spec.block == BlockShape::row && spec.outer == OuterScale::tensor),
          "ms_eden chooses its scales itself", "use scale: amax, block: 1x16, outer: tensor with round: ms_eden");
  require(spec.outer == OuterScale::tensor || spec.block == BlockShape::row, "outer: 1x128 with square blocks",
          "use block: 1x16 or outer: tensor");
  require(spec.scale != ScaleRule::rms || (spec.block == BlockShape::row && spec.round == Rounding::nearest),
          "scale: rms clips: it is for rows of blocks that are rounded to nearest", "use block: 1x16, round: nearest");
  require(!(chooses && spec.round == Rounding::stochastic_published), "stochastic_published with a choice of scales",
          "use round: stochastic or scale: amax");
  require(!(spec.scale == ScaleRule::search && spec.round == Rounding::stochastic), "scale: search with noise",
          "a scale searched for after the fact makes stochastic rounding biased: use scale: amax");
  require(
      spec.range == 0 || (spec.range >= 1 && spec.range <= 8), [&] { return fmt::format("a range of {}", spec.range); },
      "use 1 to 8; the largest E2M1 magnitude is 6");
  require(
      spec.ceiling == 0 || (spec.ceiling >= 1 && spec.ceiling <= 448),
      [&] { return fmt::format("a ceiling of {}", spec.ceiling); }, "use 1 to 448, the largest E4M3 number");
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
