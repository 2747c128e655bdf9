// What a training session says of itself in the log: a part of TrainingSession.
#include <fmt/format.h>

#include "dist/base/text.h"
#include "model/cost.h"
#include "trainer/compute/run_device.h"
#include "trainer/compute/step_schedule.h"
#include "trainer/run/training_session.h"

namespace nibble {

std::string TrainingSession::memory_text() const {
  const auto megabytes = [](uint64_t bytes) { return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6); };
  const Arena& shared = memory_->shared.arena();
  std::string lines = fmt::format("{} {}", shared.name(), megabytes(shared.planned_bytes()));
  if (const int sharers = memory_->shared.sharers(); sharers > 1) {
    lines += fmt::format(" in memory that {} ranks share", sharers);
  }
  uint64_t total = shared.planned_bytes();
  const auto add = [&](const std::string& what, uint64_t bytes) {
    total += bytes;
    if (bytes > 0) lines += fmt::format(", {} {}", what, megabytes(bytes));
  };
  for (const Arena* arena : {&memory_->device_state, &memory_->host_state}) {
    add(arena->name(), arena->planned_bytes());
  }
  for (const MemoryLine& line : model_->memory()) add(line.what, line.bytes);
  add("telemetry's probe", asked_.telemetry->own_probe_bytes());
  if (gpu_reserve() > 0) lines += fmt::format("; beside it {} stay free for libraries", megabytes(gpu_reserve()));
  return fmt::format("memory     {} a rank: {}", megabytes(total), lines);
}

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
  lines.push_back(memory_text());
  if (const std::string gather = memory_->gather->describe(); !gather.empty()) lines.push_back("gather     " + gather);
  std::vector<std::string> data = data_->describe();
  data.front() += fmt::format(" ({})", nibble::describe(schedule_));
  for (const std::string& line : data) lines.push_back("data       " + line);
  for (std::string& line : states_.describe()) lines.push_back(std::move(line));
  return lines;
}

}  // namespace nibble
