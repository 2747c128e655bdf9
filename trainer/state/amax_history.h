// Delayed scaling (Transformer Engine's DelayedScaling): an operand whose spec asks for a history is scaled by the
// largest amax that its source had in the last so many applied steps, whichever micro-batch and rank met it. The
// maximum does not depend on order, so neither do the bits on the number of ranks; the history changes only when a step
// is applied, so that an attempt which is repeated starts from the same one.
#pragma once

#include <vector>

#include "dist/device/arena.h"
#include "dist/ranks/communicator.h"
#include "model/language_model.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/state/state_memory.h"

namespace nibble {

class AmaxHistory {
 public:
  // Memory comes from the arenas, one on the CPU and one where the model computes: construct in the measuring pass and
  // again after commit(). `steps`: LanguageModel::amax_histories() of the recipe before its late switch.
  AmaxHistory(const StateMemory& memory, std::vector<int> steps, int ranks);

  bool needed() const { return longest_ > 0; }
  // Makes the model scale by this history, and note what it meets. Call for every new model.
  void attach(LanguageModel& model) const;

  // Before an attempt at a step: nothing has been met. All weights are quantised anew in it, since a pass in between
  // (a validation) may have done so and what it met is forgotten.
  void begin_attempt(LanguageModel& model) const;
  // Collective, once the step is applied: what all ranks met becomes the newest of the history.
  void advance(Communicator& communicator);

  std::vector<ReplicatedArray> arrays() const;
  static bool is_in(const CheckpointInfo& checkpoint);
  // ExitCode::bad_data where the checkpoint has no history, or a shorter one than is needed.
  void load(const CheckpointInfo& checkpoint);

 private:
  void update_scales();

  std::vector<int> steps_;  // by linear layer and role
  int64_t longest_ = 0;
  Tensor history_;       // f32 [operands, longest_], newest first; 0: no step yet
  Tensor scale_by_;      // f32 [operands]
  Tensor met_;           // f32 [operands], of this rank, where the model computes
  Tensor met_by_ranks_;  // f32 [ranks, operands]
};

}  // namespace nibble
