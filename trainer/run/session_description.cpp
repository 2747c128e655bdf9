// What a training session says of itself in the log: a part of TrainingSession.
#include <fmt/format.h>

#include "dist/base/text.h"
#include "model/cost.h"
#include "trainer/compute/run_device.h"
#include "trainer/compute/step_schedule.h"
#include "trainer/run/training_session.h"

namespace nibble {

std::vector<std::string> TrainingSession::describe() const {
  const ModelCost cost = model_cost(config_.model);
  std::vector<std::string> lines;
  lines.push_back(fmt::format("model      {} parameters ({} in linear layers, {} in embedding and head), recipe {}",
                              with_thousands(cost.parameters), with_thousands(cost.linear_parameters),
                              with_thousands(cost.embedding_parameters), config_.recipe.name));
  std::vector<std::string> layers;
  for (const Linear* linear : model_->linears()) layers.push_back(linear->describe());
  lines.push_back("layers     " + counted(layers, "linear"));
  for (std::string& line : describe_device(config_)) lines.push_back(std::move(line));
  const Arena& shared = shared_arena_->arena();
  const uint64_t total =
      shared.planned_bytes() + state_arena_->planned_bytes() + recipe_arena_->planned_bytes() + model_->memory_bytes();
  std::string memory = fmt::format(
      "{} {:.1f} MB{}, {} {:.1f} MB", shared.name(), static_cast<double>(shared.planned_bytes()) / 1e6,
      shared_arena_->sharers() > 1 ? fmt::format(" in memory that {} ranks share", shared_arena_->sharers()) : "",
      state_arena_->name(), static_cast<double>(state_arena_->planned_bytes()) / 1e6);
  for (const MemoryLine& line : model_->memory()) {
    memory += fmt::format(", {} {:.1f} MB", line.what, static_cast<double>(line.bytes) / 1e6);
  }
  if (gpu_reserve() > 0) {
    memory += fmt::format("; beside it {:.1f} MB stay free for libraries", static_cast<double>(gpu_reserve()) / 1e6);
  }
  lines.push_back(fmt::format("memory     {:.1f} MB a rank: {}", static_cast<double>(total) / 1e6, memory));
  if (const std::string gather = weight_gather_->describe(); !gather.empty()) lines.push_back("gather     " + gather);
  std::vector<std::string> data = data_->describe();
  data.front() += fmt::format(" ({})", nibble::describe(schedule_));
  for (const std::string& line : data) lines.push_back("data       " + line);
  for (std::string& line : states_.describe()) lines.push_back(std::move(line));
  return lines;
}

}  // namespace nibble
