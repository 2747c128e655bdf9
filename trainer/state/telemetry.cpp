#include "trainer/state/telemetry.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "dist/base/stopwatch.h"
#include "dist/base/vectorize.h"
#include "dist/device/thread_pool.h"
#include "model/ops/elementwise.h"
#include "quant/tensor/tensor_copy.h"
#include "trainer/compute/run_device.h"
#include "trainer/compute/training_model.h"

namespace nibble {
namespace {

constexpr size_t block_elements = 4096;  // gradient elements of one partial sum

// Sums that compare a gradient g with the gradient p of the probe.
struct GradientSums {
  double elements = 0;
  double zeros = 0;          // of g
  double squares = 0;        // |g|^2
  double probe_squares = 0;  // |p|^2
  double products = 0;       // <g, p>
  double error_squares = 0;  // |g - p|^2

  void add(const GradientSums& other) {
    elements += other.elements;
    zeros += other.zeros;
    squares += other.squares;
    probe_squares += other.probe_squares;
    products += other.products;
    error_squares += other.error_squares;
  }
  double cosine() const {
    if (squares == 0 && probe_squares == 0) return 1;
    if (squares == 0 || probe_squares == 0) return 0;
    return products / std::sqrt(squares) / std::sqrt(probe_squares);
  }
  double relative_error() const { return error_squares == 0 ? 0 : error_squares / probe_squares; }
};

// Lane i adds up the elements i, i+16, ...; then the lanes are added in order, so that the result is the same for every
// vector width.
NIBBLE_VECTORIZE GradientSums sums_of(const float* gradient, const float* probe, size_t count) {
  constexpr size_t lanes = 16;
  double zeros[lanes] = {}, squares[lanes] = {}, probe_squares[lanes] = {}, products[lanes] = {}, errors[lanes] = {};
  for (size_t first = 0; first < count; first += lanes) {
    const size_t present = std::min(lanes, count - first);
    for (size_t lane = 0; lane < present; ++lane) {
      const double g = gradient[first + lane];
      const double p = probe[first + lane];
      zeros[lane] += g == 0 ? 1 : 0;
      squares[lane] += g * g;
      probe_squares[lane] += p * p;
      products[lane] += g * p;
      errors[lane] += (g - p) * (g - p);
    }
  }
  GradientSums sums{.elements = static_cast<double>(count)};
  for (size_t lane = 0; lane < lanes; ++lane) {
    sums.add({.elements = 0,
              .zeros = zeros[lane],
              .squares = squares[lane],
              .probe_squares = probe_squares[lane],
              .products = products[lane],
              .error_squares = errors[lane]});
  }
  return sums;
}

GradientSums compare(const Tensor& of_recipe, const Tensor& of_probe) {
  const HostCopy gradient(of_recipe);
  const HostCopy probe(of_probe);
  const auto count = static_cast<size_t>(of_recipe.elements());
  std::vector<GradientSums> blocks(div_ceil(count, block_elements));
  parallel_for(blocks.size(), 1, [&](size_t begin, size_t end) {
    for (size_t block = begin; block < end; ++block) {
      const size_t first = block * block_elements;
      blocks[block] = sums_of(gradient.as<float>().data() + first, probe.as<float>().data() + first,
                              std::min(block_elements, count - first));
    }
  });
  GradientSums total;
  for (const GradientSums& block : blocks) total.add(block);
  return total;
}

bool quantises(const LinearRecipe& recipe) {
  return std::any_of(all_operand_roles.begin(), all_operand_roles.end(),
                     [&](OperandRole role) { return is_quantized(spec_of(recipe, role).format); });
}

// Returns whether the recipe quantises in some layer, before or after a late switch.
bool quantises(const Recipe& recipe) {
  const auto before = [](const Recipe& part) {
    return quantises(part.linear) || std::any_of(part.layers.begin(), part.layers.end(),
                                                 [](const LayerRule& rule) { return quantises(rule.linear); });
  };
  return before(recipe) || (recipe.late_switch && before(switched(recipe)));
}

OperandFigures figures_of(const OperandStatistics& statistics) {
  return {.relative_error = statistics.relative_error(),
          .underflow = statistics.underflow_share(),
          .clipped = statistics.clipped_share(),
          .scales_extreme = statistics.extreme_scale_share(),
          .zeros = statistics.elements == 0
                       ? 0
                       : static_cast<double>(statistics.zeros) / static_cast<double>(statistics.elements)};
}

LayerFigures figures_of(const std::string& name, const LinearStatistics& statistics) {
  LayerFigures layer{.name = name};
  for (size_t role = 0; role < operand_roles; ++role) {
    if (statistics.made[role]) layer.operand[role] = figures_of(statistics.operand[role]);
  }
  return layer;
}

}  // namespace

Telemetry::Telemetry(Communicator& communicator, const RunConfig& config, const Schedule& schedule, bool plans_only)
    : communicator_(communicator), config_(config), rank_(schedule.lane_of(0)) {
  run_together(communicator_, [&] {
    const bool wanted = config_.telemetry.every > 0 && config_.telemetry.gradient_probe && quantises(config_.recipe);
    if (wanted && measures()) build_probe(plans_only);
  });
  probe_bytes_ = static_cast<uint64_t>(communicator_.all_reduce_max(static_cast<int64_t>(own_probe_bytes_)));
}

void Telemetry::build_probe(bool plans_only) {
  const Format format = config_.model.dtype == DType::f32 ? Format::f32 : Format::bf16;
  const Recipe recipe{.name = "probe", .linear = plain_recipe(format)};
  probe_ = plans_only ? plan_training_model(config_, recipe) : make_training_model(config_, recipe);
  probe_arena_ = std::make_unique<Arena>("gradients of the telemetry probe", device_of(config_));
  const auto elements = static_cast<int64_t>(probe_->parameters().flat_size());
  const auto build = [&] { return allocate_tensor(*probe_arena_, DType::f32, {elements}); };
  probe_gradients_ = plans_only ? build() : planned(*probe_arena_, build);
  own_probe_bytes_ = probe_arena_->planned_bytes() + probe_->memory_bytes();
}

bool Telemetry::due(uint64_t step) const {
  return config_.telemetry.every > 0 && (step + 1) % static_cast<uint64_t>(config_.telemetry.every) == 0;
}

void Telemetry::begin_micro_batch(const StepEvent& event) {
  if (!measured(event)) return;
  LanguageModel& model = event.model;
  // A validation may have quantised the weights already. They are quantised again, with the same bits, to be measured.
  model.set_weights_changed();
  const std::span<Linear* const> layers = model.linears();
  statistics_.assign(layers.size(), {});
  for (size_t i = 0; i < layers.size(); ++i) layers[i]->set_statistics(&statistics_[i]);
}

void Telemetry::end_micro_batch(const StepEvent& event) {
  if (!measured(event)) return;
  LanguageModel& model = event.model;
  const MicroBatchTensors& micro_batch = *event.tensors;
  const Stopwatch stopwatch;
  const std::span<Linear* const> layers = model.linears();
  for (Linear* const layer : layers) layer->set_statistics(nullptr);
  record_ = {.step = event.step + 1};
  bool quantised = false;
  double measuring = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    record_.layers.push_back(figures_of(layers[i]->name(), statistics_[i]));
    const auto& made = statistics_[i].made;
    quantised = quantised || std::find(made.begin(), made.end(), true) != made.end();
    measuring += statistics_[i].seconds;
  }
  const bool probed = probe_ != nullptr && quantised;
  if (probed) run_probe(micro_batch);

  const ParameterTable& table = model.parameters();
  const Tensor& reference = probed ? probe_gradients_ : micro_batch.gradients;
  GradientSums all;
  for (size_t i = 0; i < layers.size(); ++i) {
    LayerFigures& layer = record_.layers[i];
    const uint32_t weight = layers[i]->weight_id();
    const GradientSums sums = compare(table.view(micro_batch.gradients, weight), table.view(reference, weight));
    all.add(sums);
    layer.grad_zero_share = sums.zeros / sums.elements;
    if (!probed) continue;
    layer.grad_cosine = sums.cosine();
    layer.grad_relative_error = sums.relative_error();
  }
  if (probed) {
    record_.grad_cosine = all.cosine();
    record_.grad_relative_error = all.relative_error();
  }
  record_.seconds = measuring + stopwatch.seconds();
}

void Telemetry::run_probe(const MicroBatchTensors& micro_batch) {
  fill_zero(probe_gradients_);
  probe_->bind(micro_batch.weights, probe_gradients_);
  probe_->set_weights_changed();
  probe_->forward_backward(micro_batch.tokens, micro_batch.targets, micro_batch.context, micro_batch.loss_scale,
                           micro_batch.document_starts);
  probe_->take_non_finite_count();  // discards the count: the probe has no part in judging the step
}

std::optional<TelemetryRecord> Telemetry::collect(uint64_t step) {
  if (!due(step)) return std::nullopt;
  if (rank_ == 0) return communicator_.rank() == 0 ? std::optional(record_) : std::nullopt;
  // The record travels as the event that metrics.jsonl gets: it has names and figures that may be absent, and both
  // directions are written and tested for that file anyway.
  const std::string event = broadcast_string(communicator_, measures() ? to_event(record_).dump() : "", rank_);
  return communicator_.rank() == 0 ? std::optional(telemetry_of(nlohmann::json::parse(event))) : std::nullopt;
}

std::string Telemetry::describe() const {
  if (config_.telemetry.every == 0) return "off";
  const std::string probe = probe_bytes_ == 0 ? "without a probe of the gradient"
                                              : fmt::format("with a probe of the gradient: {:.1f} MB on rank {}",
                                                            static_cast<double>(probe_bytes_) / 1e6, rank_);
  return fmt::format("every {} steps, {}", config_.telemetry.every, probe);
}

}  // namespace nibble
