// The measures that the papers take of a quantiser: errors, biases, and how averages of draws converge. A draw is one
// step's rounding noise and, where signs are drawn, one step's signs.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "quant/gemm/gemm.h"
#include "tests/quant/operand_fixture.h"

namespace nibble::test {

enum class Distribution : uint8_t { normal, laplace, student5, uniform };

// Returns deviates of a distribution, made of normal ones: a normal one times the length of two is Laplace's, (n1^2 +
// n2^2)/2 is exponential.
inline Matrix deviates(Distribution distribution, int64_t rows, int64_t cols, uint64_t seed) {
  constexpr size_t most = 6;  // normal deviates needed for one deviate
  const auto count = static_cast<size_t>(rows * cols);
  std::vector<float> normal = normal_deviates(distribution == Distribution::normal ? count : most * count, seed);
  if (distribution == Distribution::normal) return Matrix(rows, cols, std::move(normal));
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    const float* n = &normal[most * i];
    const double pair = static_cast<double>(n[1]) * n[1] + static_cast<double>(n[2]) * n[2];
    double value = 0;
    if (distribution == Distribution::laplace) value = n[0] * std::sqrt(pair);
    if (distribution == Distribution::uniform) value = 2 * std::exp(-pair / 2) - 1;
    if (distribution == Distribution::student5) {
      const double others =
          static_cast<double>(n[3]) * n[3] + static_cast<double>(n[4]) * n[4] + static_cast<double>(n[5]) * n[5];
      value = n[0] / std::sqrt((pair + others) / 5);
    }
    values[i] = static_cast<float>(value);
  }
  return Matrix(rows, cols, std::move(values));
}
inline Matrix normal_f32(int64_t rows, int64_t cols, uint64_t seed) {
  return deviates(Distribution::normal, rows, cols, seed);
}

inline double effective_bits(double relative_error) {
  return -0.5 * std::log2(relative_error);
}

// Makes many draws of one operand, in one memory.
class OperandSampler {
 public:
  // The source must outlive the sampler.
  OperandSampler(const Matrix& source, const OperandSpec& spec, bool transpose = false,
                 Purpose purpose = Purpose::grad_weight_dy)
      : problem_{.source = source.f32(), .transpose = transpose, .spec = spec},
        arena_(std::make_unique<Arena>("sampler")),
        rows_(transpose ? source.cols : source.rows),
        inner_(transpose ? source.rows : source.cols),
        values_(source.values.size()) {
    problem_.spec.from = Source::original;
    problem_.noise = {.seed = 2601, .tensor_id = 3, .purpose = purpose};
    problem_.signs = {{.seed = 2601, .tensor_id = 3, .purpose = Purpose::hadamard_signs}, 2};
    for (int pass = 0; pass < 2; ++pass) {
      storage_ = allocate_operand(*arena_, spec, DType::f32, rows_, inner_);
      const int64_t scratch = quantize_scratch_floats(spec, rows_, inner_);
      if (scratch > 0) problem_.scratch = allocate_tensor(*arena_, DType::f32, {scratch});
      if (pass == 0) arena_->commit();
    }
  }

  const QuantizedTensor& draw(uint32_t index) {
    problem_.noise.step = index;
    problem_.signs.stream.step = index;
    operand_ = quantize(problem_, storage_);
    return operand_;
  }
  // Returns the draw's values, [rows, inner], the rotation undone: the values that the operand has in the source's
  // basis.
  const std::vector<float>& values(uint32_t index) {
    draw(index);
    dequantize(operand_, tensor_of(std::span(values_), {rows_, inner_}));
    if (problem_.spec.rotate != 0) undo_rotations();
    return values_;
  }

 private:
  void undo_rotations() {
    const int points = problem_.spec.rotate;
    // rotate_points() normalises rotations of 16 points only.
    const float norm = points == hadamard_points ? 1.0f : 1.0f / std::sqrt(static_cast<float>(points));
    for (int rotation = problem_.spec.rotations - 1; rotation >= 0; --rotation) {
      for (int64_t first = 0; first < inner_; first += points) {
        const PhiloxBlock signs = problem_.spec.signs == Signs::fixed
                                      ? fixed_signs(points, rotation)
                                      : drawn_signs(problem_.signs, rotation, first / sign_chunk);
        float factor[sign_chunk];
        for (int i = 0; i < points; ++i) factor[i] = sign_of(signs, first + i) != 0 ? -norm : norm;
        for (int64_t row = 0; row < rows_; ++row) {
          float* values = &values_[static_cast<size_t>(row * inner_ + first)];
          rotate_points(values, points, PhiloxBlock{});
          for (int i = 0; i < points; ++i) values[i] *= factor[i];
        }
      }
    }
  }

  QuantizeProblem problem_;
  std::unique_ptr<Arena> arena_;
  int64_t rows_, inner_;
  std::vector<float> values_;
  QuantizedTensor storage_, operand_;
};

// A ratio of sums over groups and its standard error, the groups being independent.
struct Estimate {
  double value = 0;
  double error = 0;
};
inline Estimate ratio_of_sums(const std::vector<double>& above, const std::vector<double>& below) {
  double total_above = 0;
  double total_below = 0;
  for (size_t i = 0; i < above.size(); ++i) {
    total_above += above[i];
    total_below += below[i];
  }
  const double value = total_above / total_below;
  double squares = 0;
  for (size_t i = 0; i < above.size(); ++i) squares += std::pow(above[i] - value * below[i], 2);
  return {value, std::sqrt(squares) / total_below};
}

struct RoundingError {
  Estimate mse;           // |x - q|^2 / |x|^2, the mean over the draws
  Estimate shrinkage;     // 1 - <x, q> / <x, x>, q being the mean of the draws
  Estimate bias_squared;  // <A1 - x, A2 - x> / <x, x>: A1, A2 the means of the even and of the odd draws
};

// Measures the error over an even number of draws; a single one suffices for an operand without randomness. The groups
// behind the standard errors are 128 columns of `exact`, [.., cols], because these have signs of their own and rows
// have not.
template <class Draw>  // const std::vector<float>& (uint32_t index)
RoundingError rounding_error_of(const std::vector<float>& exact, size_t cols, uint32_t draws, Draw draw) {
  const size_t count = exact.size();
  const size_t groups = (cols + sign_chunk - 1) / sign_chunk;
  std::vector<float> sums[2] = {std::vector<float>(count, 0), std::vector<float>(draws == 1 ? 0 : count, 0)};
  std::vector<double> errors(groups, 0), squares(groups, 0), shrunk(groups, 0), biases(groups, 0);
  for (uint32_t index = 0; index < draws; ++index) {
    const std::vector<float>& drawn = draw(index);
    std::vector<float>& sum = sums[index % 2];
    for (size_t i = 0; i < count; ++i) {
      const float error = drawn[i] - exact[i];
      sum[i] += error;
      errors[i % cols / sign_chunk] += static_cast<double>(error) * error / draws;
    }
  }
  const double half = draws == 1 ? 1 : draws / 2;
  const std::vector<float>& second = sums[draws == 1 ? 0 : 1];
  for (size_t i = 0; i < count; ++i) {
    const size_t group = i % cols / sign_chunk;
    const double x = exact[i];
    squares[group] += x * x;
    shrunk[group] -= x * (static_cast<double>(sums[0][i]) + second[i]) / (2 * half);
    biases[group] += static_cast<double>(sums[0][i]) * second[i] / (half * half);
  }
  return {ratio_of_sums(errors, squares), ratio_of_sums(shrunk, squares), ratio_of_sums(biases, squares)};
}
inline RoundingError rounding_error(const Matrix& source, const OperandSpec& spec, uint32_t draws) {
  OperandSampler sampler(source, spec);
  return rounding_error_of(source.values, static_cast<size_t>(source.cols), draws,
                           [&](uint32_t index) -> const std::vector<float>& { return sampler.values(index); });
}

// Returns |mean - exact|^2 / |exact|^2 of the averages of so many draws, for each of `counts`, which are multiples of
// one another, ascending. All draws of the largest count are cut into groups, and the errors of groups averaged.
template <class Draw>  // const std::vector<float>& (uint32_t index)
std::vector<double> errors_of_averages(const std::vector<float>& exact, const std::vector<uint32_t>& counts,
                                       Draw draw) {
  double square = 0;
  for (const float value : exact) square += static_cast<double>(value) * value;
  std::vector<std::vector<float>> sums(counts.size(), std::vector<float>(exact.size(), 0));
  std::vector<double> errors(counts.size(), 0);
  for (uint32_t index = 0; index < counts.back(); ++index) {
    const std::vector<float>& drawn = draw(index);
    for (size_t i = 0; i < exact.size(); ++i) sums[0][i] += drawn[i] - exact[i];
    for (size_t level = 0; level < counts.size() && (index + 1) % counts[level] == 0; ++level) {
      double error = 0;
      for (float& sum : sums[level]) {
        const size_t i = static_cast<size_t>(&sum - sums[level].data());
        error += static_cast<double>(sum) * sum;
        if (level + 1 < counts.size()) sums[level + 1][i] += sum;
        sum = 0;
      }
      const uint32_t groups = counts.back() / counts[level];
      errors[level] += error / (static_cast<double>(counts[level]) * counts[level]) / square / groups;
    }
  }
  return errors;
}

// Makes the products a b^T of two operands that share their signs.
class ProductSampler {
 public:
  struct Factor {
    const Matrix& source;
    OperandSpec spec;
    bool transpose = false;
  };
  ProductSampler(const Factor& a, const Factor& b)
      : a_(a.source, a.spec, a.transpose, Purpose::grad_weight_dy),
        b_(b.source, b.spec, b.transpose, Purpose::grad_weight_x),
        rows_(a.transpose ? a.source.cols : a.source.rows),
        cols_(b.transpose ? b.source.cols : b.source.rows),
        product_(static_cast<size_t>(rows_ * cols_)) {}
  const std::vector<float>& draw(uint32_t index) {
    gemm({a_.draw(index), b_.draw(index), tensor_of(std::span(product_), {rows_, cols_})});
    return product_;
  }

 private:
  OperandSampler a_, b_;
  int64_t rows_, cols_;
  std::vector<float> product_;
};

inline std::vector<float> exact_product(ProductSampler::Factor a, ProductSampler::Factor b) {
  a.spec = b.spec = OperandSpec{.format = Format::f32};
  return ProductSampler(a, b).draw(0);
}

}  // namespace nibble::test
