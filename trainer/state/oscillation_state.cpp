#include "trainer/state/oscillation_state.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/log.h"
#include "dist/base/text.h"

namespace nibble {

void dequantize_weights(LanguageModel& model, uint64_t begin, uint64_t end, std::span<float> values,
                        const StepContext& context) {
  NIBBLE_CHECK(values.size() == end - begin, "values of the range");
  std::ranges::fill(values, std::numeric_limits<float>::quiet_NaN());
  for (Linear* const linear : model.linears()) {
    const Parameter& weight = model.parameters()[linear->weight_id()];
    const Range part = intersect({begin, end}, range_of(weight));
    if (part.empty()) continue;
    linear->dequantize_weight(part.begin - weight.offset, part.end - weight.offset,
                              values.data() + (part.begin - begin), context);
  }
}

OscillationState::OscillationState(Communicator& communicator, const OscillationConfig& config, ShardWeights weights,
                                   uint64_t seed)
    : communicator_(communicator), config_(config), weights_(std::move(weights)), seed_(seed) {}

void OscillationState::allocate(const StateMemory& memory) {
  oscillation_.emplace(memory.host, config_, weights_.end - weights_.begin);
}

// Q(w) holds the quantised weights that the forward passes of the next step use.
Oscillation::Shard OscillationState::shard(const StepEvent& event) const {
  const StepContext context{.seed = seed_, .step = narrow<uint32_t>(event.step + 1)};
  return {.read_weights = weights_.read,
          .read_quantized =
              [this, &model = event.model, context](std::span<float> values) {
                dequantize_weights(model, weights_.begin, weights_.end, values, context);
              },
          .write_weights = weights_.write};
}

void OscillationState::before_update(const StepEvent& event) {
  oscillation_->before_update(event.step, shard(event));
}

bool OscillationState::after_update(const StepEvent& event) {
  uint64_t count = 0;
  run_together(communicator_, [&] { count = oscillation_->after_update(event.step, shard(event)); });
  // This count belongs to no step. The next step must find non-finite weights itself, so it quantises them again.
  if (event.model.take_non_finite_count() != 0) event.model.set_weights_changed();
  if (!oscillation_->resets_at(event.step)) return false;
  report_resets(event.step, count);
  return true;
}

void OscillationState::report_resets(uint64_t step, uint64_t count) {
  const std::vector<uint64_t> counts = gather_each(communicator_, count);
  log_info("step {}: {} weights oscillated and were set to their quantised values", step + 1,
           with_thousands(std::accumulate(counts.begin(), counts.end(), uint64_t{0})));
}

void OscillationState::save(uint64_t steps, StateWriter& writer) const {
  for (const NamedState& buffer : oscillation_->state(steps)) {
    writer.sharded("oscillation/" + buffer.name, buffer.shard);
  }
}

void OscillationState::load(const StateReader& reader) {
  for (const NamedState& buffer : oscillation_->state(reader.steps())) {
    reader.sharded("oscillation/" + buffer.name, buffer.shard);
  }
}

}  // namespace nibble
