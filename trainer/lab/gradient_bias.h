// Measures how far the mean of many quantised backward passes lies from the gradient that it should converge to. This
// is the test of unbiasedness of Quartet II (arXiv:2601.22813, figure 9), on a real model and real text.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/loader.h"
#include "model/language_model.h"
#include "quant/recipe/recipe.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/run_config.h"

namespace nibble {

// Returns the recipe of the reference for a quantised backward pass. It has the same forward pass, and a backward pass
// whose operands are the FP32 values that the recipe's operands are made from. A weight that the recipe quantises in
// the same way in both passes, in square blocks, is taken as made from the forward operand.
Recipe unquantized_backward(const Recipe& recipe);

struct GradientBiasProblem {
  const CheckpointInfo& checkpoint;
  const RunConfig& config;
  std::vector<uint64_t> draws;  // the mean is measured after these numbers of passes, in ascending order
  uint64_t seed = 0;            // seed of the random bits of the passes; pass i uses those of step i
  uint64_t sample = 0;          // number of the first sample of the micro-batch
};

struct GradientBiasCurve {
  std::string name;           // name of a linear layer's weight
  std::vector<double> error;  // |mean - G|^2 / |G|^2, for each number of passes in `draws`
  double slope = 0;           // of log error over log draws: -1 without bias, 0 if only the bias is left
};
// Fits the slope of log error over log draws by least squares. Errors of zero are left out; the slope is 0 if fewer
// than two values remain.
double log_slope(const std::vector<uint64_t>& draws, const std::vector<double>& error);

struct GradientBias {
  uint64_t draws = 0;                     // number of passes; fewer than asked for if interrupted
  std::vector<GradientBiasCurve> curves;  // of the quantised linear layers, in the model's order
  GradientBiasCurve mean;                 // geometric mean of the curves
};
// Measures the curves. `interrupted` is called between passes; `progress` is called after each pass with their number.
// Throws ExitCode::bad_config if the recipe quantises no backward pass, and ExitCode::numerics if a gradient is not
// finite.
GradientBias measure_gradient_bias(const GradientBiasProblem& problem, SampleSource& samples,
                                   const std::function<bool()>& interrupted,
                                   const std::function<void(uint64_t)>& progress);

}  // namespace nibble
