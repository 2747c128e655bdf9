// Chooses the input channels of each linear layer that a recipe retains in eight bits
// (model/layers/outlier_channels.h): the channels with the largest squared norms, summed over the micro-batches of the
// applied steps of a window. The values are added in the order of the gradient's sum (dist/zero/tree_reduction.h), so
// that the choice does not depend on the number of ranks. It is made once in a run. Here and in checkpoints channel c
// of a layer has the number c + features_in of all layers before it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dist/device/arena.h"
#include "dist/ranks/communicator.h"
#include "dist/zero/partition.h"
#include "dist/zero/tree_reduction.h"
#include "model/language_model.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/state/state_memory.h"

namespace nibble {

// A linear layer: its input channels, and how many of them the recipe retains (0: the layer is left unchanged).
struct OutlierLayer {
  std::string name;
  int64_t features_in = 0;
  int64_t count = 0;
};
std::vector<OutlierLayer> outlier_layers(const LanguageModel& model);

class OutlierSelection {
 public:
  // Memory comes from the arenas in `memory`: construct the object in their measuring pass and again after commit().
  // `layers` are those of the recipe before its late switch; `groups` is the number of groups of the gradient's sum.
  OutlierSelection(const StateMemory& memory, Communicator& communicator, const OutlierRule& rule,
                   std::vector<OutlierLayer> layers, uint64_t groups);

  // Makes the model retain the chosen channels. Call it for every new model.
  void attach(LanguageModel& model) const;

  // Call these before and after each of this rank's gradient groups in an attempt at a step (counted from 0).
  void begin_group(uint64_t step, LanguageModel& model);
  void end_group(uint64_t step, LanguageModel& model);
  // Adds up the norms of all ranks. Collective; call it after the last group.
  void end_attempt(uint64_t step);
  // Call it after the step. At the end of the window it chooses the channels and makes the model retain them.
  void after_step(uint64_t step, bool applied, LanguageModel& model);

  // Returns the arrays that a checkpoint after `steps` steps must keep: the norms during the window, and the choice
  // after it.
  std::vector<ReplicatedArray> arrays(uint64_t steps) const;
  // Throws ExitCode::bad_data if the checkpoint lacks such an array or if it does not fit the layers.
  void load(const CheckpointInfo& checkpoint);

 private:
  bool records(uint64_t step) const { return first_step_ <= step && step < end_step_; }
  void choose();
  std::span<const int32_t> chosen() const;

  Communicator& communicator_;
  uint64_t first_step_, end_step_;  // the window
  std::vector<OutlierLayer> layers_;
  Partition partition_;  // of the channels of all layers
  std::optional<TreeReduction> reduction_;
  Tensor group_norms_;          // f32 [channels of all layers], the norms of one group; on the model's device
  std::span<float> group_sum_;  // the group's norms in the memory of the reduction
  Tensor norms_;                // f32 [channels of all layers], summed over the applied steps of the window
  Tensor step_norms_;           // f32 [channels of all layers], the norms of the last attempt
  Tensor choice_;               // i32 [retained channels of all layers]: their numbers, ascending
  bool made_ = false;
};

// Makes a model retain the channels that the run of a checkpoint has chosen, if it has chosen any.
void retain_outliers_of(const CheckpointInfo& checkpoint, LanguageModel& model);

}  // namespace nibble
