// Delayed scaling (Transformer Engine's DelayedScaling). An operand whose spec has a history of n steps is scaled by
// the largest amax of its source in the last n applied steps, over all micro-batches and ranks. A maximum does not
// depend on the order of its values, so the bits do not depend on the number of ranks. The history changes only when a
// step is applied, so that a second attempt at a step starts from the same history.
#pragma once

#include <vector>

#include "dist/ranks/communicator.h"
#include "model/language_model.h"
#include "trainer/state/step_state.h"

namespace nibble {

class AmaxHistory final : public StepState {
 public:
  // Returns whether an operand of the model has a history.
  static bool needed(const LanguageModel& model);
  // `model` follows the recipe as it is before its late switch.
  AmaxHistory(Communicator& communicator, const LanguageModel& model);

  std::string_view name() const override { return "amax"; }
  void allocate(const StateMemory& memory) override;
  // Makes the model scale by this history and record the amax values that it observes.
  void attach(LanguageModel& model) override;
  // Clears the observed values. It also makes the model quantise all weights again in the attempt: an earlier pass (a
  // validation) may have quantised them, and its observations are cleared here.
  void begin_attempt(const StepEvent& event) override;
  // After an applied step the values that all ranks observed become the newest of the history.
  bool after_update(const StepEvent& event) override;
  void save(uint64_t steps, StateWriter& writer) const override;
  void load(const StateReader& reader) override;

 private:
  void advance();
  void update_scales();

  Communicator& communicator_;
  std::vector<int> steps_;  // length of the history, by linear layer and role
  int64_t longest_ = 0;
  Tensor history_;            // f32 [operands, longest_], newest first; 0 = no step yet
  Tensor scale_by_;           // f32 [operands]
  Tensor observed_;           // f32 [operands], observed on this rank; on the model's device
  Tensor observed_by_ranks_;  // f32 [ranks, operands]
};

}  // namespace nibble
