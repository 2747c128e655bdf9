// The state that a recipe carries from one step to the next, besides weights and moments: amax histories, outlier
// channels, and the paths of oscillating weights. The state has the same bits for every number of ranks and after a
// resume, and an attempt at a step that is not applied does not change it.
#pragma once

#include <optional>
#include <vector>

#include "dist/device/arena.h"
#include "dist/ranks/communicator.h"
#include "dist/zero/partition.h"
#include "model/language_model.h"
#include "optim/adamw/adamw.h"
#include "optim/oscillation.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/run_config.h"
#include "trainer/state/amax_history.h"
#include "trainer/state/outlier_selection.h"

namespace nibble {

class RecipeState {
 public:
  // The objects of the run that the state works with. They must outlive it.
  struct Owners {
    Communicator& communicator;
    const RunConfig& config;
    uint64_t groups;  // number of groups of the gradient's sum
    const Partition& partition;
    AdamW& optimizer;
    Tensor weights;  // the whole flat buffer
  };

  // Memory comes from the arenas in `memory`: construct the object in their measuring pass and again after commit().
  // The model follows the recipe as it is before its late switch.
  RecipeState(const StateMemory& memory, const Owners& owners, const LanguageModel& model);

  // Makes a model use the state. Call it for every new model of the run.
  void attach(LanguageModel& model) const;

  // Call these around an attempt at a step (counted from 0) and around each of this rank's groups in it. end_attempt()
  // is collective.
  void begin_attempt(LanguageModel& model) const { amax_.begin_attempt(model); }
  void begin_group(uint64_t step, LanguageModel& model);
  void end_group(uint64_t step, LanguageModel& model);
  void end_attempt(uint64_t step);
  // Collective. Call these before and after the update of every step, even if it is not applied; the weights on all
  // ranks are then those before or after the optimizer's update. after_update() returns true if it changed this rank's
  // shard of the weights, so that the weights must be gathered again.
  void before_update(uint64_t step, LanguageModel& model);
  bool after_update(uint64_t step, bool applied, LanguageModel& model);

  // Adds to a checkpoint, taken after `steps` steps, what the state needs for a resume.
  void save(uint64_t steps, CheckpointState& checkpoint) const;
  void load(const CheckpointInfo& checkpoint, const std::vector<TensorEntry>& tensors);

 private:
  Oscillation::Shard shard(uint64_t step, LanguageModel& model);
  void report_resets(uint64_t step, uint64_t count);

  Owners owners_;
  AmaxHistory amax_;
  std::optional<OutlierSelection> outliers_;
  std::optional<Oscillation> oscillation_;
};

}  // namespace nibble
