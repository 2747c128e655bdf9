// The linear layer alone: its three GEMMs are exactly the products of the operands that the recipe describes.
#include "model/linear.h"

#include <gtest/gtest.h>

#include <array>

#include "model/model_fixture.h"

namespace nibble::test {
namespace {

constexpr int64_t tokens = 48;
constexpr int64_t in = 64;
constexpr int64_t out = 32;
constexpr StepContext context{.seed = 5, .step = 3, .micro_batch = 9};

std::vector<float> normals(size_t count, uint64_t seed) {
  ParameterTable table;
  table.add("values", {static_cast<int64_t>(count)}, Initialization::normal, 1, false);
  std::vector<float> values(table.flat_size());
  initialize(table, seed, 0, values.size(), values.data());
  values.resize(count);
  for (float& value : values) value = to_float(bf16_nearest(value));
  return values;
}

// What an operand stands for, made by the quantiser alone: [rows, inner].
std::vector<float> values_of(const OperandSpec& spec, std::vector<float> source, std::array<int64_t, 2> shape,
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

// a [m, k] times the transpose of b [n, k], in FP64.
std::vector<double> product(const std::vector<float>& a, const std::vector<float>& b, int64_t k) {
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

void expect_close(const std::vector<float>& actual, const std::vector<double>& expected, const char* what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    // Sums of 64 products of about 1, each rounded.
    ASSERT_NEAR(actual[i], expected[i], 64 * 64 * 6e-8) << what << " " << i;
  }
}

// An FP32 layer with its arenas and buffers.
struct Layer {
  explicit Layer(const LinearRecipe& recipe) {
    const uint32_t id = table.add("layer", {out, in}, Initialization::normal, 1, true);
    linear = std::make_unique<Linear>(LinearDescription{"layer", id, in, out, DType::f32, recipe});
    const LayerArenas arenas{weight_arena, saved_arena, workspace_arena, 1, tokens, true};
    linear->allocate(arenas);
    for (Arena* arena : {&weight_arena, &saved_arena, &workspace_arena}) arena->commit();
    linear->allocate(arenas);
    linear->bind(table, tensor_of(std::span(w), {out * in}), tensor_of(std::span(grad_w), {out * in}));
  }

  void run() {
    const Tensor x_view = tensor_of(std::span(x), {tokens, in});
    linear->forward({x_view, tensor_of(std::span(y), {tokens, out}), context, true});
    if (!linear->keeps_input()) std::fill(x.begin(), x.end(), 0.0F);
    linear->backward({tensor_of(std::span(dy), {tokens, out}), tensor_of(std::span(dx), {tokens, in}), context});
  }

  ParameterTable table;
  Arena weight_arena{"weights"}, saved_arena{"saved"}, workspace_arena{"workspace"};
  std::unique_ptr<Linear> linear;
  std::vector<float> w = normals(out * in, 1), grad_w = std::vector<float>(out * in);
  std::vector<float> x = normals(tokens * in, 2), y = std::vector<float>(tokens * out);
  std::vector<float> dy = normals(tokens * out, 3), dx = std::vector<float>(tokens * in);
};

void check(const LinearRecipe& recipe) {
  Layer layer(recipe);
  const std::vector<float> x = layer.x;
  layer.run();

  const auto noise = [](Purpose purpose, uint32_t micro_batch) {
    return NoiseStream{.seed = 5, .step = 3, .micro_batch = micro_batch, .tensor_id = 0, .purpose = purpose};
  };
  const auto made_from = [](const OperandSpec& spec, const std::vector<float>& original,
                            const std::vector<float>& forward) {
    return spec.from == Source::saved ? forward : original;
  };
  const auto plain_spec = [](OperandSpec spec) {
    spec.from = Source::original;
    return spec;
  };
  const std::vector<float> forward_x =
      values_of(recipe.forward_x, x, {tokens, in}, false, noise(Purpose::forward_x, 9));
  const std::vector<float> forward_w =
      values_of(recipe.forward_w, layer.w, {out, in}, false, noise(Purpose::forward_w, 0));
  expect_close(layer.y, product(forward_x, forward_w, in), "y");

  const std::vector<float> dy_rows =
      values_of(recipe.grad_input_dy, layer.dy, {tokens, out}, false, noise(Purpose::grad_input_dy, 9));
  const std::vector<float> w_columns =
      values_of(plain_spec(recipe.grad_input_w), made_from(recipe.grad_input_w, layer.w, forward_w), {out, in}, true,
                noise(Purpose::grad_input_w, 0));
  expect_close(layer.dx, product(dy_rows, w_columns, out), "dx");

  const std::vector<float> dy_columns =
      values_of(recipe.grad_weight_dy, layer.dy, {tokens, out}, true, noise(Purpose::grad_weight_dy, 9));
  const std::vector<float> x_columns =
      values_of(plain_spec(recipe.grad_weight_x), made_from(recipe.grad_weight_x, x, forward_x), {tokens, in}, true,
                noise(Purpose::grad_weight_x, 9));
  expect_close(layer.grad_w, product(dy_columns, x_columns, tokens), "dw");
}

TEST(Linear, Plain) {
  check(plain_recipe(Format::f32));
  check(plain_recipe(Format::bf16));
}

TEST(Linear, Nvidia) {
  check(nvidia().linear);
}

TEST(Linear, NoiseOnEveryOperand) {
  const OperandSpec noisy{.format = Format::nvfp4, .round = Rounding::stochastic};
  check({noisy, noisy, noisy, noisy, noisy, noisy});
}

TEST(Linear, BackwardOperandsFromForwardOnes) {
  LinearRecipe recipe = nvidia().linear;
  recipe.forward_w.block = BlockShape::row;
  recipe.grad_input_w = {.format = Format::nvfp4, .from = Source::saved};
  recipe.grad_weight_x.from = Source::saved;
  check(recipe);
  // Read back without being quantised again.
  recipe.grad_input_w.format = Format::f32;
  recipe.grad_weight_x = {.format = Format::bf16, .from = Source::saved};
  recipe.grad_weight_dy = {.format = Format::nvfp4};
  check(recipe);
  recipe.grad_weight_x.format = Format::f32;
  check(recipe);
}

TEST(Linear, KeepsItsInputOnlyWhereBackwardReadsIt) {
  const auto keeps = [](const LinearRecipe& recipe, DType dtype) {
    return Linear(LinearDescription{"layer", 0, in, out, dtype, recipe}).keeps_input();
  };
  EXPECT_TRUE(keeps(plain_recipe(Format::bf16), DType::bf16));
  EXPECT_TRUE(keeps(plain_recipe(Format::f32), DType::f32));
  EXPECT_FALSE(keeps(plain_recipe(Format::bf16), DType::f32));
  EXPECT_FALSE(keeps(nvidia().linear, DType::bf16));
  LinearRecipe forward_only = nvidia().linear;
  forward_only.grad_weight_dy = forward_only.grad_weight_x = {.format = Format::bf16};
  EXPECT_TRUE(keeps(forward_only, DType::bf16));
  forward_only.grad_weight_x.from = Source::saved;
  EXPECT_FALSE(keeps(forward_only, DType::bf16));
}

// 4.5 bits an element and orientation.
TEST(Linear, MemoryOfQuantisedOperands) {
  const Layer layer(nvidia().linear);
  const auto operand = [](size_t elements) {
    return round_up(elements / 2, Arena::alignment) + round_up(elements / 16, Arena::alignment) + Arena::alignment;
  };
  EXPECT_EQ(layer.weight_arena.planned_bytes(), 2 * operand(in * out));
  EXPECT_EQ(layer.saved_arena.planned_bytes(), operand(in * tokens));
  // Backward holds both operands of dY.
  EXPECT_EQ(layer.workspace_arena.planned_bytes(), std::max(operand(in * tokens), 2 * operand(out * tokens)));
}

TEST(Linear, RefusesRecipesThatCannotBeFollowed) {
  const auto code_of = [](const LinearRecipe& recipe) {
    try {
      Linear(LinearDescription{"layer", 0, in, out, DType::bf16, recipe});
    } catch (const Error& error) {
      EXPECT_FALSE(error.remedy().empty());
      return error.code();
    }
    return ExitCode::ok;
  };
  LinearRecipe recipe = nvidia().linear;
  EXPECT_EQ(code_of(recipe), ExitCode::ok);
  recipe.grad_weight_x.rotate = 0;
  EXPECT_EQ(code_of(recipe), ExitCode::bad_config);
  recipe = nvidia().linear;
  recipe.grad_weight_dy.from = Source::saved;
  EXPECT_EQ(code_of(recipe), ExitCode::bad_config);
  recipe = nvidia().linear;
  recipe.forward_x.rotate = recipe.forward_w.rotate = 16;
  recipe.forward_w.block = BlockShape::row;
  EXPECT_EQ(code_of(recipe), ExitCode::ok);
  recipe.grad_weight_x.from = Source::saved;
  EXPECT_EQ(code_of(recipe), ExitCode::bad_config);
}

}  // namespace
}  // namespace nibble::test
