// What a recipe remembers from one step to the next, besides weights and moments: amax histories, outlier channels, the
// paths of oscillating weights. All of it follows the run bit for bit: the same on every number of ranks, restored by a
// resume, untouched by an attempt at a step that is not applied.
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
  // What the state belongs to; all of it outlives the state.
  struct Owners {
    Communicator& communicator;
    const RunConfig& config;
    uint64_t groups;  // of the gradient's sum
    const Partition& partition;
    AdamW& optimizer;
    Tensor weights;  // the whole flat buffer
  };

  // Memory comes from the arenas: construct in the measuring pass and again after commit(). The model follows the
  // recipe as it is before its late switch.
  RecipeState(const StateMemory& memory, const Owners& owners, const LanguageModel& model);

  // For every new model of the run.
  void attach(LanguageModel& model) const;

  // An attempt at a step (counted from 0) and each of this rank's groups in it. end_attempt() is collective.
  void begin_attempt(LanguageModel& model) const { amax_.begin_attempt(model); }
  void begin_group(uint64_t step, LanguageModel& model);
  void end_group(uint64_t step, LanguageModel& model);
  void end_attempt(uint64_t step);
  // Around the update of every step, also one that is not applied; collective. The model's weights are
  // as the optimizer left them, on all ranks. True if this changed the shards of weights, which are then to be gathered
  // again.
  void before_update(uint64_t step, LanguageModel& model);
  bool after_update(uint64_t step, bool applied, LanguageModel& model);

  // What a checkpoint after `steps` steps must keep.
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
