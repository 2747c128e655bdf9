#include "trainer/state/recipe_state.h"

#include <numeric>
#include <span>

#include "dist/base/error.h"
#include "dist/base/log.h"
#include "dist/base/text.h"

namespace nibble {

namespace {

OscillationConfig oscillation_config(const OscillationRule& rule, const RunConfig& config) {
  return {.first_step = step_of_share(rule.from_share, static_cast<uint64_t>(config.train.steps)),
          .every = static_cast<uint64_t>(rule.every),
          .window = static_cast<uint64_t>(rule.window),
          .threshold = static_cast<float>(rule.threshold)};
}

}  // namespace

RecipeState::RecipeState(const StateMemory& memory, const Owners& owners, const LanguageModel& model)
    : owners_(owners), amax_(memory, model.linears(), owners.communicator.size()) {
  if (const auto& rule = owners.config.recipe.outliers) {
    outliers_.emplace(memory, owners.communicator, *rule, outlier_layers(model), owners.groups);
  }
  if (const auto& rule = owners.config.recipe.oscillation) {
    oscillation_.emplace(memory.host, oscillation_config(*rule, owners.config),
                         owners.partition.count(owners.communicator.rank()));
  }
}

void RecipeState::attach(LanguageModel& model) const {
  amax_.attach(model);
  if (outliers_) outliers_->attach(model);
}

void RecipeState::begin_group(uint64_t step, LanguageModel& model) {
  if (outliers_) outliers_->begin_group(step, model);
}

void RecipeState::end_group(uint64_t step, LanguageModel& model) {
  if (outliers_) outliers_->end_group(step, model);
}

void RecipeState::end_attempt(uint64_t step) {
  if (outliers_) outliers_->end_attempt(step);
}

// Q(w) holds the quantised weights that the forward passes of the next step use.
Oscillation::Shard RecipeState::shard(uint64_t step, LanguageModel& model) {
  const int rank = owners_.communicator.rank();
  const uint64_t begin = owners_.partition.begin(rank);
  const uint64_t end = owners_.partition.end(rank);
  const StepContext context{.seed = owners_.config.run.seed, .step = narrow<uint32_t>(step + 1)};
  return {.read_weights = [this](std::span<float> values) { owners_.optimizer.read_weights(values, owners_.weights); },
          .read_quantized = [&model, begin, end, context](
                                std::span<float> values) { model.dequantize_weights(begin, end, values, context); },
          .write_weights =
              [this](std::span<const float> values) { owners_.optimizer.set_weights(values, owners_.weights); }};
}

void RecipeState::before_update(uint64_t step, LanguageModel& model) {
  if (oscillation_) oscillation_->before_update(step, shard(step, model));
}

bool RecipeState::after_update(uint64_t step, bool applied, LanguageModel& model) {
  if (applied) amax_.advance(owners_.communicator);
  if (outliers_) outliers_->after_step(step, applied, model);
  if (!oscillation_) return false;
  uint64_t count = 0;
  run_together(owners_.communicator, [&] { count = oscillation_->after_update(step, shard(step, model)); });
  // This count belongs to no step. The next step must find non-finite weights itself, so it quantises them again.
  if (model.take_non_finite_count() != 0) model.set_weights_changed();
  if (!oscillation_->resets_at(step)) return false;
  report_resets(step, count);
  return true;
}

void RecipeState::report_resets(uint64_t step, uint64_t count) {
  const auto ranks = static_cast<size_t>(owners_.communicator.size());
  std::vector<uint64_t> counts(ranks);
  counts[static_cast<size_t>(owners_.communicator.rank())] = count;
  std::vector<uint64_t> offsets(ranks + 1);
  for (size_t rank = 0; rank <= ranks; ++rank) offsets[rank] = rank * sizeof(uint64_t);
  owners_.communicator.all_gather(std::as_writable_bytes(std::span(counts)), offsets);
  log_info("step {}: {} weights oscillated and were set to their quantised values", step + 1,
           with_thousands(std::accumulate(counts.begin(), counts.end(), uint64_t{0})));
}

void RecipeState::save(uint64_t steps, CheckpointState& checkpoint) const {
  for (const ReplicatedArray& array : amax_.arrays()) checkpoint.replicated.push_back(array);
  if (outliers_) {
    for (const ReplicatedArray& array : outliers_->arrays(steps)) checkpoint.replicated.push_back(array);
  }
  if (!oscillation_) return;
  for (const NamedState& buffer : oscillation_->state(steps)) {
    checkpoint.buffers.push_back({"oscillation/" + buffer.name, buffer.shard});
  }
}

void RecipeState::load(const CheckpointInfo& checkpoint, const std::vector<TensorEntry>& tensors) {
  amax_.load(checkpoint);
  if (outliers_) outliers_->load(checkpoint);
  if (!oscillation_) return;
  const int rank = owners_.communicator.rank();
  for (const NamedState& buffer : oscillation_->state(checkpoint.step)) {
    load_buffer(checkpoint, "oscillation/" + buffer.name, tensors, owners_.partition.begin(rank),
                owners_.partition.end(rank), buffer.shard);
  }
}

}  // namespace nibble
