// Resets oscillating weights (optim/oscillation.h) in the windows of a recipe's `oscillation`.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "dist/ranks/communicator.h"
#include "model/language_model.h"
#include "optim/oscillation.h"
#include "trainer/state/step_state.h"

namespace nibble {

// Elements [begin, end) of the flat buffers, which this rank's optimizer updates. The functions read and write its
// weights, f32 [end - begin] on the CPU; with BF16 weights and FP32 masters these are the masters.
struct ShardWeights {
  uint64_t begin = 0;
  uint64_t end = 0;
  std::function<void(std::span<float>)> read;
  std::function<void(std::span<const float>)> write;
};

// Writes Q(w) of elements [begin, end) of the flat weights, as the forward passes of this step use them: f32 [end -
// begin]. Elements of other tensors, of layers whose forward pass does not quantise weights, and of retained channels
// are NaN.
void dequantize_weights(LanguageModel& model, uint64_t begin, uint64_t end, std::span<float> values,
                        const StepContext& context);

class OscillationState final : public StepState {
 public:
  OscillationState(Communicator& communicator, const OscillationConfig& config, ShardWeights weights, uint64_t seed);

  std::string_view name() const override { return "oscillation"; }
  void allocate(const StateMemory& memory) override;
  void before_update(const StepEvent& event) override;
  bool after_update(const StepEvent& event) override;
  // Saves the paths inside a window.
  void save(uint64_t steps, StateWriter& writer) const override;
  void load(const StateReader& reader) override;

 private:
  Oscillation::Shard shard(const StepEvent& event) const;
  void report_resets(uint64_t step, uint64_t count);

  Communicator& communicator_;
  OscillationConfig config_;
  ShardWeights weights_;
  uint64_t seed_;  // of the run
  std::optional<Oscillation> oscillation_;
};

}  // namespace nibble
