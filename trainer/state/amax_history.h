// Delayed scaling (Transformer Engine's DelayedScaling). An operand whose spec has a history of n steps is scaled by
// the largest amax of its source in the last n applied steps, over all micro-batches and ranks. A maximum does not
// depend on the order of its values, so the bits do not depend on the number of ranks. The history changes only when a
// step is applied, so that a second attempt at a step starts from the same history.
#pragma once

#include <span>
#include <vector>

#include "dist/device/arena.h"
#include "dist/ranks/communicator.h"
#include "model/language_model.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/state/state_memory.h"

namespace nibble {

class AmaxHistory {
 public:
  // Memory comes from the arenas in `memory`: construct the object in their measuring pass and again after commit().
  // `layers` are LanguageModel::linears() of the recipe before its late switch.
  AmaxHistory(const StateMemory& memory, std::span<Linear* const> layers, int ranks);

  bool needed() const { return longest_ > 0; }
  // Makes the model scale by this history and record the amax values that it observes. Call it for every new model.
  void attach(LanguageModel& model) const;

  // Clears the observed values before an attempt at a step. It also makes the model quantise all weights again in the
  // attempt: an earlier pass (a validation) may have quantised them, and its observations are cleared here.
  void begin_attempt(LanguageModel& model) const;
  // Collective, after the step was applied. The values that all ranks observed become the newest of the history.
  void advance(Communicator& communicator);

  std::vector<ReplicatedArray> arrays() const;
  static bool is_in(const CheckpointInfo& checkpoint);
  // Throws ExitCode::bad_data if the checkpoint has no history, or a shorter one than is needed.
  void load(const CheckpointInfo& checkpoint);

 private:
  void update_scales();

  std::vector<int> steps_;  // length of the history, by linear layer and role
  int64_t longest_ = 0;
  Tensor history_;            // f32 [operands, longest_], newest first; 0 = no step yet
  Tensor scale_by_;           // f32 [operands]
  Tensor observed_;           // f32 [operands], observed on this rank; on the model's device
  Tensor observed_by_ranks_;  // f32 [ranks, operands]
};

}  // namespace nibble
