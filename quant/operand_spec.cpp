#include "quant/operand_spec.h"

#include <fmt/format.h>

#include "dist/error.h"

namespace nibble {

std::string_view name_of(Format format) {
  switch (format) {
    case Format::f32: return "fp32";
    case Format::bf16: return "bf16";
    case Format::nvfp4: return "nvfp4";
  }
  return "?";
}

std::string_view name_of(BlockShape block) {
  return block == BlockShape::block_1x16 ? "1x16" : "16x16";
}

std::string_view name_of(Rounding round) {
  switch (round) {
    case Rounding::nearest: return "nearest";
    case Rounding::stochastic: return "stochastic";
    case Rounding::stochastic_published: return "stochastic_published";
  }
  return "?";
}

std::string_view name_of(Source source) {
  return source == Source::original ? "original" : "saved";
}

std::string describe(const OperandSpec& spec) {
  if (spec.format != Format::nvfp4) return std::string(name_of(spec.format));
  std::string text = fmt::format("{} {} {}", name_of(spec.format), name_of(spec.block), name_of(spec.round));
  if (spec.rotate != 0) text += fmt::format(" rotate {}", spec.rotate);
  if (spec.from != Source::original) text += fmt::format(" from {}", name_of(spec.from));
  return text;
}

void check_supported(const OperandSpec& spec, std::string_view where) {
  const auto refuse = [&](std::string_view what, std::string remedy) {
    throw Error(ExitCode::bad_config, fmt::format("{}: {}", where, what), std::move(remedy));
  };
  if (spec.rotate != 0 && spec.rotate != 16) {
    refuse(fmt::format("a rotation of {} points is not supported", spec.rotate), "set rotate: 0 or rotate: 16");
  }
  if (spec.format != Format::nvfp4 && spec.rotate != 0) {
    refuse(fmt::format("a rotated {} operand is not supported", name_of(spec.format)), "set rotate: 0");
  }
  if (spec.format != Format::nvfp4 && spec.round != Rounding::nearest) {
    refuse(fmt::format("a {} operand is not rounded stochastically", name_of(spec.format)), "set round: nearest");
  }
}

}  // namespace nibble
