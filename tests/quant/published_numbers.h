// The figures that the quantisers are held to: Quartet II (arXiv:2601.22813), four over six (arXiv:2512.02010) and
// NVIDIA's recipe (arXiv:2509.25149) as published, and as measured with independent programs written from the
// equations. Used by the tests and by the table in docs/numerics.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "quant/recipe/recipe.h"
#include "tests/quant/numbers.h"

namespace nibble::test {

constexpr float eden_range = 6.0F * 16 / 17 / 0.93F;  // 6.0721

inline OperandSpec with_scale(ScaleRule scale, BlockShape block = BlockShape::row) {
  return {.format = Format::nvfp4, .block = block, .scale = scale};
}
inline OperandSpec stochastic(ScaleRule scale = ScaleRule::amax) {
  return {.format = Format::nvfp4, .scale = scale, .round = Rounding::stochastic};
}
inline OperandSpec rotated(OperandSpec spec, int points = 128) {
  spec.rotate = points;
  spec.signs = Signs::step;
  return spec;
}
inline OperandSpec nearest_to_eden_range() {
  return {.format = Format::nvfp4, .range = eden_range, .ceiling = 256};
}
inline OperandSpec ms_eden(EdenCorrection correction, float range = 0, int rotations = 1) {
  OperandSpec spec = rotated({.format = Format::nvfp4, .round = Rounding::ms_eden, .correction = correction});
  spec.range = range;
  spec.rotations = rotations;
  return spec;
}

// ---- One tensor of 2048 x 2048 normal deviates, 8 draws ----

constexpr double not_published = -1;

struct PublishedRounding {
  std::string method;
  OperandSpec spec;
  double paper = not_published;         // mse x 1e3, as printed in the paper
  double mse = not_published;           // mse x 1e3, measured independently
  double shrinkage = not_published;     // in units of 1
  double bias_squared = not_published;  // x 1e6; for a rule without randomness: the mse
};
inline bool is_random(const OperandSpec& spec) {
  return has_rounding_noise(spec) || has_drawn_signs(spec);
}

inline std::vector<PublishedRounding> published_roundings() {
  const OperandSpec nearest = with_scale(ScaleRule::amax);
  const BlockShape square = BlockShape::square;
  return {
      {"nearest 1x16", nearest, 9.0, 9.054, 0.00441, 9054},
      {"nearest 1x16, range 6.072, ceiling 256", nearest_to_eden_range(), 9.0, 8.981, 0.00779, 8981},
      {"four over six, squared error", with_scale(ScaleRule::four_over_six), 7.6, 7.566, 0.00337, 7566},
      {"four over six, absolute error", with_scale(ScaleRule::four_over_six_mae), not_published, 7.803},
      {"four over six, largest error", with_scale(ScaleRule::four_over_six_abs_max), not_published, 7.990},
      {"search", with_scale(ScaleRule::search), not_published, 6.63},
      {"nearest 16x16", with_scale(ScaleRule::amax, square), 12.4, 12.401, 0.00910, 12401},
      {"four over six 16x16", with_scale(ScaleRule::four_over_six, square), 12.4, 12.388, 0.00900, 12388},
      {"stochastic 1x16", stochastic(), 23.5, 23.547, 0, 0},
      {"stochastic, four over six", stochastic(ScaleRule::four_over_six), 17.5, 17.491, -0.00728, 710},
      {"rotated 128, nearest, range 6.072", rotated(nearest_to_eden_range()), not_published, 8.977, 0.00781, 60.9},
      {"MS-EDEN per 128, published", ms_eden(EdenCorrection::per_128_published), 9.8, 9.730, 0.00059, 0},
      {"MS-EDEN per 128", ms_eden(EdenCorrection::per_128), not_published, 9.744, 0, 0},
      {"MS-EDEN per 16", ms_eden(EdenCorrection::per_16), 9.4, 9.328, 0, 0},
      {"MS-EDEN per 16, range 6", ms_eden(EdenCorrection::per_16, 6), not_published, 9.375, 0, 0},
      {"MS-EDEN post hoc, published", ms_eden(EdenCorrection::post_hoc_published), not_published, 9.373, 0, 0},
  };
}

// ---- Choices of scale on other data, mse x 1e3 ----

struct PublishedScaleRule {
  std::string data;
  Distribution distribution;
  double six, four_over_six, share_of_four, search;
};
inline std::vector<PublishedScaleRule> published_scale_rules() {
  return {{"normal", Distribution::normal, 9.04, 7.56, 0.45, 6.63},
          {"Laplace", Distribution::laplace, 8.60, 7.60, 0.34, 6.80},
          {"Student, 5 degrees", Distribution::student5, 8.52, 7.51, 0.36, 6.74},
          {"uniform", Distribution::uniform, 10.33, 7.61, 0.69, 6.20}};
}

struct ScaleRuleErrors {
  double six, four_over_six, share_of_four, search;
};
inline ScaleRuleErrors scale_rule_errors(const Matrix& source) {
  const OperandSpec six{.format = Format::nvfp4, .ceiling = 256};  // the scales that the choice falls back to
  const OperandSpec choice = with_scale(ScaleRule::four_over_six);
  const auto mse = [&](const OperandSpec& spec) { return 1e3 * rounding_error(source, spec, 1).mse.value; };
  OperandSampler with_six(source, six);
  OperandSampler with_choice(source, choice);
  const Tensor scales_of_six = with_six.draw(0).block_scales;
  const Tensor scales = with_choice.draw(0).block_scales;
  int64_t four = 0;
  for (int64_t i = 0; i < scales.elements(); ++i) {
    four += scales.as<uint8_t>()[i] != scales_of_six.as<uint8_t>()[i] ? 1 : 0;
  }
  return {mse(with_scale(ScaleRule::amax)), mse(choice),
          static_cast<double>(four) / static_cast<double>(scales.elements()), mse(with_scale(ScaleRule::search))};
}

// ---- Rows of 128 normal deviates times 2^0 .. 2^8: means over the rows ----

struct PublishedRows {
  std::string method;
  OperandSpec spec;
  double mse, shrinkage;  // mse x 1e3
};
inline std::vector<PublishedRows> published_rows() {
  return {{"nearest, range 6.072", nearest_to_eden_range(), 8.97, 0.00785},
          {"stochastic", stochastic(), 23.54, 0},
          {"MS-EDEN per 128, published", ms_eden(EdenCorrection::per_128_published, eden_range), 9.75, 0.00066},
          {"MS-EDEN per 16", ms_eden(EdenCorrection::per_16, eden_range), 9.38, 0}};
}

struct RowErrors {
  Estimate mse, shrinkage;
};
inline RowErrors errors_of_rows(const OperandSpec& spec, uint32_t draws) {
  constexpr size_t rows = 9 * 1024;
  std::vector<float> values = normal_deviates(rows * sign_chunk, 51);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::ldexp(values[i], static_cast<int>(i / sign_chunk % 9));
  const Matrix source(rows, sign_chunk, std::move(values));
  OperandSampler sampler(source, spec);
  std::vector<double> mse(rows, 0), shrinkage(rows, 0);
  for (uint32_t draw = 0; draw < draws; ++draw) {
    const std::vector<float>& drawn = sampler.values(draw);
    for (size_t row = 0; row < rows; ++row) {
      double square = 0;
      double error = 0;
      double product = 0;
      for (size_t i = row * sign_chunk; i < (row + 1) * sign_chunk; ++i) {
        const double x = source.values[i];
        square += x * x;
        product += x * (drawn[i] - x);
        error += (drawn[i] - x) * (drawn[i] - x);
      }
      mse[row] += error / square / draws;
      shrinkage[row] -= product / square / draws;
    }
  }
  const std::vector<double> ones(rows, 1);
  return {ratio_of_sums(mse, ones), ratio_of_sums(shrinkage, ones)};
}

// ---- Where on the E2M1 grid the block's maximum falls: range = 6 * 16/17 / factor, mse x 1e3 on normal data ----

struct PublishedRange {
  double factor;
  double nearest, per_16, per_128, post_hoc;
};
inline std::vector<PublishedRange> published_ranges() {
  return {{0.90, 9.20, 9.54, 10.26, 9.78},     {0.92, 8.98, 9.34, 9.88, 9.45}, {0.93, 8.97, 9.33, 9.77, 9.36},
          {16.0 / 17, 9.04, 9.37, 9.75, 9.33}, {0.95, 9.15, 9.45, 9.79, 9.33}, {1.00, 10.63, 10.56, 11.05, 9.94}};
}
struct RangeSpecs {
  OperandSpec nearest, per_16, per_128, post_hoc;
};
inline RangeSpecs specs_of_range(double factor) {
  const auto range = static_cast<float>(6.0 * 16 / 17 / factor);
  return {{.format = Format::nvfp4, .range = range, .ceiling = 256},
          ms_eden(EdenCorrection::per_16, range),
          ms_eden(EdenCorrection::per_128_published, range),
          ms_eden(EdenCorrection::post_hoc_published, range)};
}

// ---- Averages ----

inline const std::vector<uint32_t> averaged_counts = {1, 4, 16, 64};

// The product of two 256 x 2048 matrices of normal deviates: effective bits of the average of so many draws.
struct PublishedAverages {
  std::string method;
  OperandSpec spec;
  std::vector<double> bits;
};
inline std::vector<PublishedAverages> published_averages() {
  return {
      {"stochastic, not rotated", stochastic(), {2.192, 3.196, 4.200, 5.192}},
      {"rotated 128, stochastic, four over six",
       rotated(stochastic(ScaleRule::four_over_six)),
       {2.401, 3.389, 4.335, 5.158}},
      {"MS-EDEN per 128, published", ms_eden(EdenCorrection::per_128_published), {2.843, 3.842, 4.836, 5.834}},
      {"MS-EDEN per 16", ms_eden(EdenCorrection::per_16), {2.877, 3.870, 4.866, 5.861}},
      {"MS-EDEN post hoc, published", ms_eden(EdenCorrection::post_hoc_published), {2.866, 3.874, 4.873, 5.864}},
      {"rotated 128, nearest, range 6.072", rotated(nearest_to_eden_range()), {2.911, 3.876, 4.772, 5.455}},
  };
}

inline std::vector<double> product_bits(const OperandSpec& spec) {
  const Matrix a = normal_f32(256, 2048, 1);
  const Matrix b = normal_f32(256, 2048, 2);
  ProductSampler sampler({a, spec}, {b, spec});
  std::vector<double> bits =
      errors_of_averages(exact_product({a, {}}, {b, {}}), averaged_counts,
                         [&](uint32_t index) -> const std::vector<float>& { return sampler.draw(index); });
  for (double& value : bits) value = effective_bits(value);
  return bits;
}

// On one tensor: the error of the average of B draws, times B, x 1e3.
inline const std::vector<uint32_t> tensor_counts = {1, 16, 256};
struct PublishedDecay {
  std::string method;
  OperandSpec spec;
  std::vector<double> scaled_errors;
};
inline std::vector<PublishedDecay> published_decays() {
  return {{"stochastic", stochastic(), {23.6, 23.8, 23.7}},
          {"MS-EDEN per 16", ms_eden(EdenCorrection::per_16), {9.37, 9.39, 9.38}},
          {"MS-EDEN per 128, published", ms_eden(EdenCorrection::per_128_published), {9.77, 9.79, 9.85}},
          {"rotated 128, nearest, range 6.072", rotated(nearest_to_eden_range()), {9.0, 10.0, 24.7}},
          {"stochastic, four over six", stochastic(ScaleRule::four_over_six), {17.5, 28.0, 197}}};
}

inline std::vector<double> tensor_decay(const OperandSpec& spec, int64_t rows) {
  const Matrix source = normal_f32(rows, 2048, 1);
  OperandSampler sampler(source, spec);
  std::vector<double> scaled = errors_of_averages(
      source.values, tensor_counts, [&](uint32_t index) -> const std::vector<float>& { return sampler.values(index); });
  for (size_t i = 0; i < scaled.size(); ++i) scaled[i] *= 1e3 * tensor_counts[i];
  return scaled;
}

// ---- A whole layer ----

struct PublishedLayer {
  std::string scheme;
  LinearRecipe recipe;
  double forward;                                                            // x 1e3
  double grad_input_bits = not_published, grad_weight_bits = not_published;  // one draw
  double grad_weight_gain = 3.0;                                             // bits that 64 draws add
};

inline OperandSpec from_saved(OperandSpec spec) {
  spec.from = Source::saved;
  return spec;
}
// The recipes of others as Quartet II's authors ran them: NVIDIA's with the guard and with signs that are drawn;
// TetraJet-v2 without FP32 scales for 128 elements.
inline std::vector<PublishedLayer> published_layers() {
  const OperandSpec row = with_scale(ScaleRule::amax);
  const OperandSpec square = with_scale(ScaleRule::amax, BlockShape::square);
  const OperandSpec row_46 = with_scale(ScaleRule::four_over_six);
  const OperandSpec square_46 = with_scale(ScaleRule::four_over_six, BlockShape::square);
  const OperandSpec rotated_32 = rotated(stochastic(), 32);
  const OperandSpec eden = ms_eden(EdenCorrection::post_hoc);
  const auto nvidia = [&](const OperandSpec& x, const OperandSpec& w) {
    return LinearRecipe{x, w, stochastic(), w, rotated(stochastic(), 16), rotated(row, 16)};
  };
  const auto all_alike = [](const OperandSpec& forward, const OperandSpec& back) {
    return LinearRecipe{forward, forward, back, from_saved(back), back, from_saved(back)};
  };
  return {{"NVIDIA, guarded", nvidia(row, square), 21.4, 2.710, 2.477, 2.96},
          {"NVIDIA, four over six", nvidia(row_46, square_46), 19.9, not_published, not_published, 2.96},
          {"TetraJet-v2, simplified", all_alike(row, rotated_32), 18.0, 2.199, 2.203},
          {"Quartet II, nearest", all_alike(row, eden), 18.0, 2.865, 2.867},
          {"Quartet II", all_alike(row_46, eden), 15.2, 2.870, 2.871}};
}

}  // namespace nibble::test
