#include "trainer/lab/gradient_bias.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <span>

#include "dist/base/error.h"
#include "dist/device/arena.h"
#include "model/blocks/block.h"
#include "model/ops/elementwise.h"
#include "quant/recipe/operand_role.h"
#include "quant/tensor/tensor_copy.h"
#include "trainer/compute/run_device.h"
#include "trainer/compute/training_model.h"
#include "trainer/run/micro_batch.h"

namespace nibble {
namespace {

LinearRecipe unquantized_backward(const LinearRecipe& recipe) {
  const auto plain = [](const OperandSpec& spec) { return OperandSpec{.format = Format::f32, .from = spec.from}; };
  LinearRecipe result = recipe;
  result.grad_input_dy = plain(recipe.grad_input_dy);
  result.grad_input_w = plain(recipe.grad_input_w);
  result.grad_weight_dy = plain(recipe.grad_weight_dy);
  result.grad_weight_x = plain(recipe.grad_weight_x);
  const bool same_weight = recipe.grad_input_w == recipe.forward_w && recipe.forward_w.block == BlockShape::square;
  if (same_weight) result.grad_input_w.from = Source::saved;
  return result;
}

bool quantizes_backward(const LinearRecipe& recipe) {
  return std::any_of(all_operand_roles.begin() + 2, all_operand_roles.end(),
                     [&](OperandRole role) { return is_quantized(spec_of(recipe, role).format); });
}

// Overwrites the gradients that the model is bound to with those of the micro-batch's mean loss, and copies them to
// `gradients`.
void run_pass(LanguageModel& model, MicroBatch& micro_batch, const StepContext& context, const Tensor& gradient,
              std::span<float> gradients) {
  fill_zero(gradient);
  const float scale = 1.0F / static_cast<float>(micro_batch.tokens().elements());
  const double loss = model.forward_backward(micro_batch.tokens(), micro_batch.targets(), context, scale,
                                             micro_batch.document_starts());
  copy(gradient, tensor_of(gradients, {gradient.elements()}));
  const bool finite = std::isfinite(loss) && model.take_non_finite_count() == 0 &&
                      std::all_of(gradients.begin(), gradients.end(), [](float value) { return std::isfinite(value); });
  if (!finite) {
    throw Error(ExitCode::numerics, fmt::format("pass {} has a gradient that is not finite", context.step + 1),
                "measure an earlier checkpoint, or another recipe");
  }
}

// The range of the flat buffer that holds the gradient of a linear layer whose backward pass is quantised.
struct Region {
  std::string name;
  uint64_t begin = 0, end = 0;
};
std::vector<Region> quantized_regions(const LanguageModel& model, const Recipe& recipe) {
  const auto blocks = static_cast<int>(model.config().blocks());
  std::vector<Region> regions;
  for (const Parameter& parameter : model.parameters().parameters()) {
    const std::optional<int> block = block_of_parameter(parameter.name);
    if (parameter.shape.size() != 2 || !block || *block < 0) continue;
    if (!quantizes_backward(resolve(recipe, parameter.name, *block, blocks))) continue;
    regions.push_back({parameter.name, parameter.offset, parameter.offset + parameter.count});
  }
  return regions;
}

double relative_error(const Region& region, const std::vector<double>& sum, uint64_t draws,
                      const std::vector<float>& truth) {
  double error = 0;
  double norm = 0;
  for (uint64_t i = region.begin; i < region.end; ++i) {
    const double difference = sum[i] / static_cast<double>(draws) - double{truth[i]};
    error += difference * difference;
    norm += double{truth[i]} * double{truth[i]};
  }
  return norm > 0 ? error / norm : 0;
}

GradientBiasCurve geometric_mean(const std::vector<GradientBiasCurve>& curves) {
  GradientBiasCurve mean{.name = "geometric mean", .error = {}, .slope = 0};
  for (size_t i = 0; i < curves.front().error.size(); ++i) {
    double logs = 0;
    for (const GradientBiasCurve& curve : curves) logs += std::log(std::max(curve.error[i], 1e-300));
    mean.error.push_back(std::exp(logs / static_cast<double>(curves.size())));
  }
  return mean;
}

}  // namespace

Recipe unquantized_backward(const Recipe& recipe) {
  Recipe result = recipe;
  result.linear = unquantized_backward(recipe.linear);
  for (LayerRule& rule : result.layers) rule.linear = unquantized_backward(rule.linear);
  return result;
}

double log_slope(const std::vector<uint64_t>& draws, const std::vector<double>& error) {
  double n = 0;
  double x = 0;
  double y = 0;
  double xx = 0;
  double xy = 0;
  for (size_t i = 0; i < error.size(); ++i) {
    if (!(error[i] > 0)) continue;
    const double log_draws = std::log(static_cast<double>(draws[i]));
    const double log_error = std::log(error[i]);
    n += 1;
    x += log_draws;
    y += log_error;
    xx += log_draws * log_draws;
    xy += log_draws * log_error;
  }
  const double spread = n * xx - x * x;
  return n >= 2 && spread > 0 ? (n * xy - x * y) / spread : 0;
}

GradientBias measure_gradient_bias(const GradientBiasProblem& problem, SampleSource& samples,
                                   const std::function<bool()>& interrupted,
                                   const std::function<void(uint64_t)>& progress) {
  const RunConfig& config = problem.config;
  MicroBatch micro_batch({.sequences = config.train.micro_batch_sequences,
                          .sequence_length = config.model.sequence_length,
                          .document_mask = config.data.document_mask});
  micro_batch.load(samples, problem.sample, config.train.micro_batch_sequences);

  // The reference comes first, and its memory is freed before the recipe's model takes its own.
  std::unique_ptr<LanguageModel> model = make_training_model(config, unquantized_backward(config.recipe));
  const auto size = static_cast<int64_t>(model->parameters().flat_size());
  const std::vector<Region> regions = quantized_regions(*model, config.recipe);
  if (regions.empty()) {
    throw Error(ExitCode::bad_config,
                fmt::format("recipe {} quantises no operand of a backward pass", config.recipe.name),
                "name another with --recipe");
  }
  const Layout layout = model->parameters().layout();
  Arena arena("weights and gradients", device_of(config));
  Tensor weights;
  Tensor gradient;
  planned(arena, [&] {
    weights = allocate_weights(arena, layout);
    gradient = allocate_tensor(arena, DType::f32, {size});
  });
  std::vector<float> gradients(static_cast<size_t>(size));
  load_array(problem.checkpoint, layout, weights_array(weights, layout));
  model->bind(weights, gradient);
  run_pass(*model, micro_batch, {.seed = problem.seed, .step = 0, .micro_batch = 0}, gradient, gradients);
  const std::vector<float> truth = gradients;

  model.reset();
  model = make_training_model(config, config.recipe);
  model->bind(weights, gradient);
  GradientBias result;
  for (const Region& region : regions) result.curves.push_back({.name = region.name, .error = {}, .slope = 0});
  std::vector<double> sum(static_cast<size_t>(size));
  for (size_t next = 0; next < problem.draws.size() && !interrupted();) {
    const StepContext context{.seed = problem.seed, .step = narrow<uint32_t>(result.draws), .micro_batch = 0};
    run_pass(*model, micro_batch, context, gradient, gradients);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += double{gradients[i]};
    progress(++result.draws);
    if (result.draws != problem.draws[next]) continue;
    for (size_t i = 0; i < regions.size(); ++i) {
      result.curves[i].error.push_back(relative_error(regions[i], sum, result.draws, truth));
    }
    ++next;
  }
  for (GradientBiasCurve& curve : result.curves) curve.slope = log_slope(problem.draws, curve.error);
  result.mean = geometric_mean(result.curves);
  result.mean.slope = log_slope(problem.draws, result.mean.error);
  return result;
}

}  // namespace nibble
