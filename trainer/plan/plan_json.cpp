#include <nlohmann/json.hpp>

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/plan/plan_units.h"
#include "trainer/plan/run_plan.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json memory_json(const MemoryPlan& memory) {
  Json json = Json::object();
  for (const MemoryLine& line : memory.lines) {
    const std::string kind = key_of(line.what);
    json[kind] = json.value(kind, uint64_t{0}) + line.bytes;
  }
  json["total"] = memory.total;
  return json;
}

}  // namespace

Json plan_json(const RunPlan& plan) {
  const RunConfig& config = plan.run.config;
  const MemoryPlan& memory = plan.memory;
  Json changes = Json::array();
  for (const MemoryChange& change : plan.changes) {
    changes.push_back({{"set", change.setting},
                       {"saves_bytes", change.saves},
                       {"fits", change.fits},
                       {"changes_numbers", change.changes_numbers}});
  }
  Json groups = Json::object();
  for (const RunPlan::Group& group : plan.groups) groups[group.what] = group.parameters;
  Json parts = Json::object();
  for (const SpeedEstimate::Part& part : plan.speed.parts) parts[key_of(part.what)] = part.seconds;
  const uint64_t kept = checkpoints_at_once(config);
  return {{"device", plan.run.device == nullptr ? "cpu" : plan.run.device->name},
          {"ranks", plan.run.ranks},
          {"recipe", config.recipe.name},
          {"assumed", plan.run.assumed},
          {"parameters", plan.parameters},
          {"active_parameters", plan.active_parameters},
          {"parameter_groups", groups},
          {"tensors", or_null(plan.tensors)},
          {"flops_per_token", plan.flops_per_token},
          {"forward_share", plan.forward_share},
          {"memory", memory_json(memory)},
          {"memory_on_host", memory.on_host},
          {"memory_largest_rank", memory.largest},
          {"memory_reserve", memory.reserve},
          {"memory_needed", memory.needed},
          {"memory_available", memory.available},
          {"fits", memory.fits()},
          {"fits_with", plan.fits_with},
          {"changes", changes},
          {"checkpoint_bytes", memory.checkpoint_bytes},
          {"checkpoints_at_once", kept},
          {"disk_bytes", kept * memory.checkpoint_bytes},
          {"tokens_per_step", config.train.tokens_per_step},
          {"steps", config.train.steps},
          {"tokens", plan.tokens()},
          {"tokens_per_parameter", static_cast<double>(plan.tokens()) / static_cast<double>(plan.parameters)},
          {"tokens_per_second", plan.speed.tokens_per_second},
          {"step_seconds", parts},
          {"basis", plan.speed.basis},
          {"hours", plan.hours},
          {"watts", or_null(plan.watts)},
          {"energy_kwh", or_null(plan.energy_kwh)},
          {"energy_basis", energy_basis(plan)}};
}

}  // namespace nibble
