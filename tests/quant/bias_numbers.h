// Inputs on which unbiased quantisers are biased after all: vectors with few elements that are not zero, operands that
// are nearly parallel, noise that rows share.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/quant/published_numbers.h"

namespace nibble::test {

// The squared relative bias x 1e4 of MS-EDEN with one rotation, on vectors of 128.
struct PublishedSparse {
  int nonzero;
  double least, most;
};
inline std::vector<PublishedSparse> published_sparse() {
  return {{1, 0, 0}, {2, 9, 15}, {3, 24, 27}, {4, 22, 28}, {8, 5, 5}, {16, 0.2, 0.2}, {32, 0, 0}};
}

// The relative bias of the GEMM of operands whose rows have this correlation, with MS-EDEN per 16. Below a correlation
// of 0.9 it is under 1e-4.
struct PublishedParallel {
  double correlation, bias;
};
inline std::vector<PublishedParallel> published_parallel() {
  return {{1.0, 8.1e-3}, {0.99, 6.7e-4}, {0.95, 1.3e-4}, {0.8, 0}};
}

// Returns [16, 128 * vectors / 16]: vectors of 128, each with `nonzero` normal deviates in random places. Columns of
// 128 have signs of their own.
inline Matrix sparse_vectors(int64_t vectors, int nonzero, uint64_t seed) {
  const int64_t cols = sign_chunk * vectors / 16;
  const std::vector<float> drawn = normal_deviates(static_cast<size_t>(vectors * nonzero), seed);
  std::vector<float> values(static_cast<size_t>(16 * cols), 0);
  size_t next = 0;
  for (int64_t vector = 0; vector < vectors; ++vector) {
    float* place = &values[static_cast<size_t>(vector * sign_chunk)];
    const NoiseStream stream{seed, 1, 0, 0, Purpose::sample_order};
    for (uint64_t attempt = 0, placed = 0; placed < static_cast<uint64_t>(nonzero); ++attempt) {
      const PhiloxBlock random = random_block(stream, static_cast<uint64_t>(vector) << 16 | attempt);
      float& element = place[random.word[0] % sign_chunk];
      if (element != 0) continue;
      element = drawn[next++];
      ++placed;
    }
  }
  return Matrix(16, cols, std::move(values));
}

// Returns the first two elements of the mean over all signs of the quantised e0 + 0.1 e1 of 128 dimensions.
inline std::array<double, 2> mean_of_concentrated(const OperandSpec& spec) {
  constexpr int64_t vectors = 8192;
  std::vector<float> values(static_cast<size_t>(vectors * sign_chunk), 0);
  for (size_t at = 0; at < values.size(); at += sign_chunk) {
    values[at] = 1;
    values[at + 1] = 0.1f;
  }
  const Matrix source(1, vectors * sign_chunk, std::move(values));
  OperandSampler sampler(source, spec);
  const std::vector<float>& drawn = sampler.values(0);
  std::array<double, 2> mean{};
  for (size_t at = 0; at < drawn.size(); at += sign_chunk) {
    for (size_t i = 0; i < 2; ++i) mean[i] += static_cast<double>(drawn[at + i]) / static_cast<double>(vectors);
  }
  return mean;
}

// Returns the squared relative bias of dW when only some of 128 tokens have a gradient.
inline Estimate bias_of_weight_gradient(const OperandSpec& spec, int64_t tokens_with_gradient, uint32_t draws) {
  constexpr int64_t tokens = 128;
  constexpr int64_t features = 128;
  const Matrix x = normal_f32(tokens, features, 11);
  Matrix dy = normal_f32(tokens, features, 12);
  for (size_t i = static_cast<size_t>(tokens_with_gradient * features); i < dy.values.size(); ++i) dy.values[i] = 0;
  ProductSampler sampler({dy, spec, true}, {x, spec, true});
  return rounding_error_of(exact_product({dy, {}, true}, {x, {}, true}), features, draws,
                           [&](uint32_t index) -> const std::vector<float>& { return sampler.draw(index); })
      .bias_squared;
}

// Returns the relative bias of <Q(a), Q(b)> where a and b, rows of normal deviates, have this correlation.
inline Estimate bias_of_parallel_operands(const OperandSpec& spec, double correlation, uint32_t draws) {
  constexpr int64_t rows = 64;
  constexpr int64_t cols = 8192;
  const Matrix a = normal_f32(rows, cols, 21);
  std::vector<float> values = normal_f32(rows, cols, 22).values;
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(correlation * a.values[i] + std::sqrt(1 - correlation * correlation) * values[i]);
  }
  const Matrix b(rows, cols, std::move(values));
  OperandSampler quantised_a(a, spec, false, Purpose::grad_weight_dy);
  OperandSampler quantised_b(b, spec, false, Purpose::grad_weight_x);
  std::vector<double> exact(cols / sign_chunk, 0);
  std::vector<double> errors(cols / sign_chunk, 0);
  for (uint32_t draw = 0; draw < draws; ++draw) {
    const std::vector<float>& drawn_a = quantised_a.values(draw);
    const std::vector<float>& drawn_b = quantised_b.values(draw);
    for (size_t i = 0; i < drawn_a.size(); ++i) {
      const double product = static_cast<double>(a.values[i]) * b.values[i];
      exact[i % cols / sign_chunk] += product;
      errors[i % cols / sign_chunk] += static_cast<double>(drawn_a[i]) * drawn_b[i] - product;
    }
  }
  return ratio_of_sums(errors, exact);
}

// The published error of MS-EDEN; it is 667e-6 where all rows share their noise.
constexpr double published_row_sums = 15.8e-6;

// Returns the relative squared error of column sums of |q| over 1024 rows of rotated normal deviates.
inline Estimate error_of_row_sums(const OperandSpec& spec, uint32_t draws) {
  constexpr int64_t rows = 1024;
  constexpr int64_t cols = 1024;
  const Matrix x = normal_f32(rows, cols, 31);
  OperandSpec plain = spec;  // normal deviates stay normal deviates when they are rotated
  plain.rotate = 0;
  plain.rotations = 1;
  plain.signs = Signs::fixed;
  OperandSampler sampler(x, plain);
  std::vector<double> errors;
  std::vector<double> squares;
  for (uint32_t draw = 0; draw < draws; ++draw) {
    const std::vector<float>& drawn = sampler.values(draw);
    for (size_t col = 0; col < cols; ++col) {
      double exact = 0;
      double sum = 0;
      for (size_t at = col; at < drawn.size(); at += cols) {
        exact += std::fabs(x.values[at]);
        sum += std::fabs(drawn[at]);
      }
      errors.push_back((sum - exact) * (sum - exact));
      squares.push_back(exact * exact);
    }
  }
  return ratio_of_sums(errors, squares);
}

}  // namespace nibble::test
