#include "trainer/plan/run_plan.h"

#include <algorithm>
#include <string_view>

#include "dist/base/error.h"
#include "dist/base/text.h"
#include "model/blocks/block_kind.h"
#include "model/cost.h"
#include "trainer/compute/training_model.h"
#include "trainer/huggingface/architecture.h"
#include "trainer/huggingface/names.h"
#include "trainer/plan/memory_changes.h"

namespace nibble {
namespace {

// Returns what a parameter belongs to: "embedding", "head", "attention", "mlp", "norm".
std::string group_of(std::string_view name) {
  if (block_of_parameter(name).value_or(-1) >= 0) {
    name.remove_prefix(name.find('.') + 1);
    name.remove_prefix(name.find('.') + 1);
  }
  return std::string(name.substr(0, name.find('.')));
}

void add_parameters(const LanguageModel& model, RunPlan& plan) {
  for (const Parameter& parameter : model.parameters().parameters()) {
    const std::string what = group_of(parameter.name);
    auto found = std::ranges::find(plan.groups, what, &RunPlan::Group::what);
    if (found == plan.groups.end()) found = plan.groups.insert(found, {what, 0});
    found->parameters += parameter.count;
    plan.parameters += parameter.count;
  }
  std::ranges::stable_sort(plan.groups, std::ranges::greater(), &RunPlan::Group::parameters);
}

void add_formats(const LanguageModel& model, RunPlan& plan) {
  std::vector<std::string> layers;
  std::map<std::string, double> flops;
  for (const Linear* linear : model.linears()) {
    layers.push_back(linear->describe());
    const auto weights = static_cast<double>(model.parameters()[linear->weight_id()].count);
    flops[linear->format_of(LinearProduct::forward)] += 2 * weights;
  }
  for (const BlockKind* kind : kinds_of(model.config().pattern)) {
    const double other = kind->flops_per_token(model.config());
    if (other > 0) flops[std::string(name_of(model.config().dtype))] += other;
  }
  double all = 0;
  for (const auto& [format, count] : flops) all += count;
  for (const auto& [format, count] : flops) plan.forward_share[format] = count / all;
  plan.layers = counted(layers, "linear");
}

void add_tensors(const LanguageModel& model, RunPlan& plan) {
  try {
    const Architecture& architecture = architecture_of(model.config());
    plan.tensors =
        named_parts(architecture.names, model.parameters().layout(), layers_of(architecture, model.config())).size();
  } catch (const Error& error) {
    if (error.code() != ExitCode::bad_config) throw;
    plan.export_problem = error.what();
  }
}

}  // namespace

uint64_t RunPlan::tokens() const {
  return static_cast<uint64_t>(run.config.train.steps) * static_cast<uint64_t>(run.config.train.tokens_per_step);
}

RunPlan make_plan(const PlanRequest& request, std::optional<double> watts) {
  RunPlan plan;
  plan.run = read_planned_run(request);
  const RunConfig& config = plan.run.config;
  const PlannedDevice* const device = plan.run.device;
  plan.memory = plan_memory(config, plan.run.ranks, device);
  const std::unique_ptr<LanguageModel> model = plan_training_model(config, config.recipe);
  add_parameters(*model, plan);
  add_formats(*model, plan);
  add_tensors(*model, plan);
  const ModelCost cost = model_cost(config.model);
  plan.active_parameters = cost.active_parameters;
  plan.flops_per_token = cost.training_flops_per_token;
  if (!plan.memory.fits()) find_changes(plan);
  plan.speed = estimate_speed(config, plan.run.ranks, device);
  plan.hours = static_cast<double>(plan.tokens()) / plan.speed.tokens_per_second / 3600;
  plan.watts = watts ? watts : (device != nullptr ? std::optional(device->watts) : std::nullopt);
  if (plan.watts) plan.energy_kwh = *plan.watts * plan.run.ranks * power_overhead * plan.hours / 1000;
  return plan;
}

}  // namespace nibble
