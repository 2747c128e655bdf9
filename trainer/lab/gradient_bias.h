// How far the mean of many quantised backward passes stays from the gradient that it should converge to: the test of
// unbiasedness of Quartet II (arXiv:2601.22813, figure 9), on a real model and real text.
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

// The recipe that a quantised backward pass is judged by: the same forward pass, and a backward pass whose operands are
// FP32 values of what the recipe's are made from. A weight that the recipe quantises alike in both passes, in square
// blocks, counts as made from the forward operand.
Recipe unquantized_backward(const Recipe& recipe);

struct GradientBiasProblem {
  const CheckpointInfo& checkpoint;
  const RunConfig& config;
  std::vector<uint64_t> draws;  // ascending: after how many passes the mean is looked at
  uint64_t seed = 0;            // of the passes' random bits; pass i is step i
  uint64_t sample = 0;          // the first of the micro-batch's samples
};

struct GradientBiasCurve {
  std::string name;           // of a linear layer's weight
  std::vector<double> error;  // |mean - G|^2 / |G|^2 after so many draws
  double slope = 0;           // of log error over log draws: -1 without bias, 0 where the bias is all that is left
};
// Least squares; zero errors are left out. 0 if fewer than two are left.
double log_slope(const std::vector<uint64_t>& draws, const std::vector<double>& error);

struct GradientBias {
  uint64_t draws = 0;                     // passes made, fewer than asked for if interrupted
  std::vector<GradientBiasCurve> curves;  // quantised linear layers, in the model's order
  GradientBiasCurve mean;                 // geometric mean over them
};
// `interrupted` is asked between passes; `progress` is told after each. Throws ExitCode::bad_config if the recipe
// quantises no backward pass, ExitCode::numerics if a gradient is not finite.
GradientBias measure_gradient_bias(const GradientBiasProblem& problem, Loader& loader,
                                   const std::function<bool()>& interrupted,
                                   const std::function<void(uint64_t)>& progress);

}  // namespace nibble
