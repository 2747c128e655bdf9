// What a recipe remembers from one step to the next, besides weights and moments: amax histories. All of it follows the
// run bit for bit: the same on every number of ranks, restored by a resume, untouched by an attempt at a step that is
// not applied.
#pragma once

#include <vector>

#include "dist/arena.h"
#include "dist/communicator.h"
#include "model/language_model.h"
#include "trainer/amax_history.h"
#include "trainer/checkpoint.h"

namespace nibble {

class RecipeState {
 public:
  // Memory comes from the arena: construct in the measuring pass and again after commit(). The model follows the recipe
  // as it is before its late switch.
  RecipeState(Arena& arena, Communicator& communicator, const LanguageModel& model);

  // For every new model of the run.
  void attach(LanguageModel& model) const;

  void begin_attempt(LanguageModel& model) const { amax_.begin_attempt(model); }
  // Collective, when the last attempt's update has been applied.
  void step_applied() { amax_.advance(communicator_); }

  std::vector<ReplicatedArray> arrays() const { return amax_.arrays(); }
  void load(const CheckpointInfo& checkpoint) { amax_.load(checkpoint); }

 private:
  Communicator& communicator_;
  AmaxHistory amax_;
};

}  // namespace nibble
