// Checks that the rounding noise of different seeds, steps, micro-batches, tensors, purposes and rows is uncorrelated,
// and so are drawn signs. The operands consist of equal blocks, so that all errors have one distribution: for n pairs
// the correlation has the standard deviation 1/sqrt(n).
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "tests/quant/bias_numbers.h"

namespace nibble::test {
namespace {

constexpr int64_t rows = 1024;
constexpr int64_t cols = 256;
constexpr double deviations = 4;

// Returns equal blocks of a 6 and of values between two codes, but not midway. Only the first element is larger, and
// sets the tensor scale.
Matrix equal_blocks() {
  std::vector<float> values;
  for (int64_t i = 0; i < rows * cols; ++i) values.push_back(i % 16 == 0 ? 6.0f : 2.3f);
  values[0] = 6.4f;
  return Matrix(rows, cols, std::move(values));
}

// One error for each independent decision, [rows, per_row], less their mean: stochastic rounding decides about
// elements, MS-EDEN about block scales.
struct Errors {
  std::vector<double> values;
  size_t per_row = 0;
};

Errors errors_of(const OperandSpec& spec, const NoiseStream& noise) {
  static const Matrix source = equal_blocks();
  const std::vector<float> decoded = quantized({.source = source.f32(), .spec = spec, .noise = noise}).decoded();
  const int decisions = spec.round == Rounding::ms_eden ? 1 : 15;
  Errors errors;
  double mean = 0;
  for (size_t at = 0; at < decoded.size(); at += 16) {
    for (int i = 1; i <= decisions; ++i) {
      errors.values.push_back(decoded[at + static_cast<size_t>(i)]);
      mean += errors.values.back();
    }
  }
  mean /= static_cast<double>(errors.values.size());
  for (double& value : errors.values) value -= mean;
  errors.per_row = static_cast<size_t>(cols / 16 * decisions);
  return errors;
}

// Returns the correlation of a[i] and b[i + lag], times the square root of their number: it is in standard deviations.
double normalised_correlation(const std::vector<double>& a, const std::vector<double>& b, size_t lag = 0) {
  double product = 0;
  double square_a = 0;
  double square_b = 0;
  for (size_t i = 0; i + lag < a.size(); ++i) {
    product += a[i] * b[i + lag];
    square_a += a[i] * a[i];
    square_b += b[i + lag] * b[i + lag];
  }
  return product / std::sqrt(square_a * square_b) * std::sqrt(static_cast<double>(a.size() - lag));
}

const std::vector<std::pair<std::string, OperandSpec>>& noisy_specs() {
  static const std::vector<std::pair<std::string, OperandSpec>> specs = [] {
    std::vector<std::pair<std::string, OperandSpec>> list = {
        {"stochastic", stochastic()},
        {"published", {.format = Format::nvfp4, .round = Rounding::stochastic_published}}};
    for (const EdenCorrection correction : {EdenCorrection::per_16, EdenCorrection::post_hoc}) {
      OperandSpec spec{.format = Format::nvfp4, .round = Rounding::ms_eden, .correction = correction};
      list.emplace_back("ms_eden " + std::string(name_of(correction)), spec);
    }
    return list;
  }();
  return specs;
}

std::vector<std::pair<std::string, NoiseStream>> streams() {
  const NoiseStream base{7, 100, 10, 5, Purpose::grad_weight_dy};
  std::vector<std::pair<std::string, NoiseStream>> list = {{"base", base}};
  const auto add = [&](const std::string& name, auto change) {
    NoiseStream stream = base;
    change(stream);
    list.emplace_back(name, stream);
  };
  add("seed", [](NoiseStream& s) { ++s.seed; });
  add("high half of the seed", [](NoiseStream& s) { s.seed += uint64_t{1} << 32; });
  add("step", [](NoiseStream& s) { ++s.step; });
  add("micro-batch", [](NoiseStream& s) { ++s.micro_batch; });
  add("tensor", [](NoiseStream& s) { ++s.tensor_id; });
  add("step and micro-batch exchanged", [](NoiseStream& s) { std::swap(s.step, s.micro_batch); });
  add("step and tensor exchanged", [](NoiseStream& s) { std::swap(s.step, s.tensor_id); });
  for (const Purpose purpose : {Purpose::forward_x, Purpose::forward_w, Purpose::grad_input_dy, Purpose::grad_input_w,
                                Purpose::grad_weight_x}) {
    add("purpose " + std::to_string(static_cast<int>(purpose)), [=](NoiseStream& s) { s.purpose = purpose; });
  }
  return list;
}

TEST(Correlation, NoiseOfDifferentStreams) {
  for (const auto& [name, spec] : noisy_specs()) {
    std::vector<Errors> errors;
    for (const auto& stream : streams()) errors.push_back(errors_of(spec, stream.second));
    for (size_t a = 0; a < errors.size(); ++a) {
      for (size_t b = 0; b < a; ++b) {
        EXPECT_LT(std::fabs(normalised_correlation(errors[a].values, errors[b].values)), deviations)
            << name << ": " << streams()[a].first << ", " << streams()[b].first;
      }
    }
  }
}

// The correlations are between neighbours of a block, neighbouring blocks, and rows at the distances at which kernels
// repeat themselves.
TEST(Correlation, NoiseWithinAnOperand) {
  for (const auto& [name, spec] : noisy_specs()) {
    const Errors errors = errors_of(spec, streams()[0].second);
    std::vector<size_t> lags = {1, 2, 3, 4, 8, 15, 16};
    for (const size_t distance : {1, 2, 4, 8, 15, 16, 17, 32, 64, 128, 256, 512}) {
      lags.push_back(distance * errors.per_row);
    }
    for (const size_t lag : lags) {
      EXPECT_LT(std::fabs(normalised_correlation(errors.values, errors.values, lag)), deviations)
          << name << ": lag " << lag << ", a row has " << errors.per_row;
    }
  }
}

// Errors that are coherent over rows add up: with the published kernels, whose rows share their noise, to 667e-6.
TEST(Correlation, SumsOverRowsAverageTheNoise) {
  for (const EdenCorrection correction : {EdenCorrection::per_16, EdenCorrection::post_hoc}) {
    const Estimate ours = error_of_row_sums(ms_eden(correction), 4);
    EXPECT_NEAR(ours.value, published_row_sums, 3 * ours.error) << name_of(correction);
    EXPECT_LT(ours.error, 0.05 * published_row_sums) << "too few columns to tell";
  }
  // The mse is 23.5e-3 over 1024 rows: 23.5e-3 <x^2> / (1024 <|x|>^2) = 36.1e-6.
  const Estimate stochastically = error_of_row_sums(stochastic(), 4);
  EXPECT_NEAR(stochastically.value, 36.1e-6, 3 * stochastically.error);
}

std::vector<double> signs_of(const SignStream& signs, int rotation, int64_t first_chunk) {
  std::vector<double> values;
  for (int64_t chunk = first_chunk; chunk < first_chunk + 512; ++chunk) {
    const PhiloxBlock block = drawn_signs(signs, rotation, chunk);
    for (int64_t i = 0; i < sign_chunk; ++i) values.push_back(sign_of(block, i) != 0 ? -1 : 1);
  }
  return values;
}

TEST(Correlation, DrawnSigns) {
  std::vector<std::vector<double>> vectors;
  for (const auto& [name, stream] : streams()) {
    NoiseStream signs = stream;
    signs.purpose = Purpose::hadamard_signs;
    if (name == "base" || name.find("purpose") == std::string::npos) vectors.push_back(signs_of({signs, 2}, 0, 0));
  }
  NoiseStream base = streams()[0].second;
  base.purpose = Purpose::hadamard_signs;
  vectors.push_back(signs_of({base, 2}, 1, 0));
  vectors.push_back(signs_of({base, 0}, 0, 0));
  vectors.push_back(signs_of({base, 1}, 0, 0));
  vectors.push_back(signs_of({base, 2}, 0, 512));
  for (size_t a = 0; a < vectors.size(); ++a) {
    for (size_t b = 0; b < a; ++b) {
      EXPECT_LT(std::fabs(normalised_correlation(vectors[a], vectors[b])), deviations) << a << ", " << b;
    }
    for (const size_t lag : {1, 2, 16, 32, 64, 128}) {
      EXPECT_LT(std::fabs(normalised_correlation(vectors[a], vectors[a], lag)), deviations) << a << ", lag " << lag;
    }
  }
}

}  // namespace
}  // namespace nibble::test
