// The errors of the three GEMMs of a linear layer whose input, weight and output gradient are normal deviates.
#pragma once

#include <cstdint>
#include <vector>

#include "quant/recipe/recipe.h"
#include "tests/quant/numbers.h"

namespace nibble::test {

struct LayerShape {
  int64_t tokens = 512, features_in = 384, features_out = 512;
};

struct LayerErrors {
  double forward = 0;                           // relative squared error of Y = X W^T
  std::vector<double> grad_input, grad_weight;  // errors of the averages of so many draws
};

// Measures the errors of one layer. The forward operands have no noise. dX is compared with dY times the forward's W,
// dW with dY times the forward's X where the backward operand is made from that, else with dY times X.
inline LayerErrors layer_errors(const LinearRecipe& recipe, const LayerShape& shape, uint64_t seed,
                                const std::vector<uint32_t>& counts) {
  const Matrix x = normal_f32(shape.tokens, shape.features_in, seed);
  const Matrix w = normal_f32(shape.features_out, shape.features_in, seed + 1000);
  const Matrix dy = normal_f32(shape.tokens, shape.features_out, seed + 2000);
  const Matrix x_forward(x.rows, x.cols, OperandSampler(x, recipe.forward_x).values(0));
  const Matrix w_forward(w.rows, w.cols, OperandSampler(w, recipe.forward_w).values(0));
  const Matrix& x_back = recipe.grad_weight_x.from == Source::saved ? x_forward : x;
  const Matrix& w_back = recipe.grad_input_w.from == Source::saved ? w_forward : w;

  const auto errors = [&](const ProductSampler::Factor& a, const ProductSampler::Factor& b,
                          const std::vector<float>& exact, const std::vector<uint32_t>& of) {
    ProductSampler sampler(a, b);
    return errors_of_averages(exact, of,
                              [&](uint32_t index) -> const std::vector<float>& { return sampler.draw(index); });
  };
  const OperandSpec plain{};
  LayerErrors result;
  result.forward = errors({x, recipe.forward_x}, {w, recipe.forward_w}, exact_product({x, plain}, {w, plain}), {1})[0];
  result.grad_input = errors({dy, recipe.grad_input_dy}, {w_back, recipe.grad_input_w, true},
                             exact_product({dy, plain}, {w_forward, plain, true}), counts);
  result.grad_weight = errors({dy, recipe.grad_weight_dy, true}, {x_back, recipe.grad_weight_x, true},
                              exact_product({dy, plain, true}, {x_back, plain, true}), counts);
  return result;
}

struct LayerFigures {
  double forward = 0;  // relative squared error x 1e3
  std::vector<double> grad_input_bits, grad_weight_bits;
};
// Returns the mean over two layers.
inline LayerFigures layer_figures(const LinearRecipe& recipe, const std::vector<uint32_t>& counts) {
  LayerFigures figures{0, std::vector<double>(counts.size(), 0), std::vector<double>(counts.size(), 0)};
  constexpr int layers = 2;
  for (uint64_t seed = 1; seed <= layers; ++seed) {
    const LayerErrors errors = layer_errors(recipe, {}, seed, counts);
    figures.forward += 1e3 * errors.forward / layers;
    for (size_t i = 0; i < counts.size(); ++i) {
      figures.grad_input_bits[i] += effective_bits(errors.grad_input[i]) / layers;
      figures.grad_weight_bits[i] += effective_bits(errors.grad_weight[i]) / layers;
    }
  }
  return figures;
}

}  // namespace nibble::test
