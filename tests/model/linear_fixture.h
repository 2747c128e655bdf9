// A linear layer alone, and the operands and products that it should have, made by the quantiser and in FP64.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "model/exchange.h"
#include "model/layers/linear.h"
#include "model/model_fixture.h"

namespace nibble::test {

inline constexpr StepContext layer_context{.seed = 5, .step = 3, .micro_batch = 9};

inline std::vector<float> normals(size_t count, uint64_t seed) {
  ParameterTable table;
  table.add({.name = "values", .shape = {static_cast<int64_t>(count)}, .init_std = 1});
  std::vector<float> values(table.flat_size());
  initialize(table, seed, 0, values.size(), values.data());
  values.resize(count);
  for (float& value : values) value = to_float(bf16_nearest(value));
  return values;
}

// Returns the values of an operand, made by the quantiser alone: [rows, inner].
inline std::vector<float> values_of(const OperandSpec& spec, std::vector<float> source, std::array<int64_t, 2> shape,
                                    bool transpose, const NoiseStream& noise) {
  const int64_t rows = shape[transpose ? 1 : 0];
  const int64_t inner = shape[transpose ? 0 : 1];
  Arena arena("operand");
  allocate_operand(arena, spec, DType::f32, rows, inner);
  arena.commit();
  const QuantizedTensor storage = allocate_operand(arena, spec, DType::f32, rows, inner);
  const Tensor view = tensor_of(std::span(source), {shape[0], shape[1]});
  const QuantizedTensor operand =
      quantize({.source = view, .transpose = transpose, .spec = spec, .noise = noise}, storage);
  std::vector<float> values(source.size());
  dequantize(operand, tensor_of(std::span(values), {rows, inner}));
  return values;
}

// Returns a [m, k] times the transpose of b [n, k], in FP64.
inline std::vector<double> product(const std::vector<float>& a, const std::vector<float>& b, int64_t k) {
  const int64_t m = static_cast<int64_t>(a.size()) / k;
  const int64_t n = static_cast<int64_t>(b.size()) / k;
  std::vector<double> c(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t p = 0; p < k; ++p) {
        c[static_cast<size_t>(i * n + j)] +=
            static_cast<double>(a[static_cast<size_t>(i * k + p)]) * b[static_cast<size_t>(j * k + p)];
      }
    }
  }
  return c;
}

// Compares sums of up to `terms` products of about 1, each rounded.
inline void expect_close(const std::vector<float>& actual, const std::vector<double>& expected, int64_t terms,
                         const char* what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], static_cast<double>(terms * terms) * 6e-8) << what << " " << i;
  }
}

struct LayerShape {
  int64_t tokens, in, out;
};

// An FP32 layer with its arenas and buffers.
struct Layer {
  Layer(const LinearRecipe& recipe, const LayerShape& layer_shape, const std::optional<OutlierRule>& outliers = {})
      : shape(layer_shape) {
    const auto [tokens, in, out] = shape;
    const uint32_t id = table.add({.name = "layer", .shape = {out, in}, .decay = true, .init_std = 1});
    linear = std::make_unique<Linear>(LinearDescription{.name = "layer",
                                                        .weight_id = id,
                                                        .features_in = in,
                                                        .features_out = out,
                                                        .dtype = DType::f32,
                                                        .recipe = recipe,
                                                        .outliers = outliers});
    const LayerArenas arenas{weight_arena, saved_arena, workspace_arena, 1, tokens, true};
    linear->allocate(arenas);
    for (Arena* arena : {&weight_arena, &saved_arena, &workspace_arena}) arena->commit();
    linear->allocate(arenas);
    linear->set_non_finite(Tensor(&non_finite, DType::i64, {1}));
    LocalExchange exchange;
    exchange.bind(table, tensor_of(std::span(w), {out * in}), tensor_of(std::span(grad_w), {out * in}));
    linear->bind(exchange.acquire(0, Direction::backward));
  }

  Tensor x_view() { return tensor_of(std::span(x), {shape.tokens, shape.in}); }
  Tensor y_view() { return tensor_of(std::span(y), {shape.tokens, shape.out}); }

  void forward() { linear->forward({x_view(), y_view(), layer_context, true}); }
  void backward() {
    linear->backward({tensor_of(std::span(dy), {shape.tokens, shape.out}),
                      tensor_of(std::span(dx), {shape.tokens, shape.in}), layer_context});
  }
  void run() {
    forward();
    if (!linear->keeps_input()) std::fill(x.begin(), x.end(), 0.0F);
    backward();
  }

  static size_t elements(int64_t rows, int64_t cols) { return static_cast<size_t>(rows * cols); }

  LayerShape shape;
  ParameterTable table;
  Arena weight_arena{"weights"}, saved_arena{"saved"}, workspace_arena{"workspace"};
  std::unique_ptr<Linear> linear;
  int64_t non_finite = 0;  // values that the layer's quantisers have read
  std::vector<float> w = normals(elements(shape.out, shape.in), 1), grad_w = std::vector<float>(w.size());
  std::vector<float> x = normals(elements(shape.tokens, shape.in), 2);
  std::vector<float> y = std::vector<float>(elements(shape.tokens, shape.out));
  std::vector<float> dy = normals(elements(shape.tokens, shape.out), 3), dx = std::vector<float>(x.size());
};

}  // namespace nibble::test
