// Which input channels of each linear layer a recipe retains in eight bits (model/layers/outlier_channels.h): those of
// the largest squared norms, summed over the micro-batches of the applied steps of a window. The sums have the order of
// the gradient's (dist/zero/tree_reduction.h), so that the choice does not depend on the number of ranks; it is made
// once.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "dist/device/arena.h"
#include "dist/ranks/communicator.h"
#include "dist/zero/partition.h"
#include "dist/zero/tree_reduction.h"
#include "model/language_model.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/state/state_memory.h"

namespace nibble {

class OutlierSelection {
 public:
  // Memory comes from the arenas, one on the CPU and one where the model computes: construct in the measuring pass and
  // again after commit(). `layers`: LanguageModel::outlier_layers() of the recipe before its late switch; `groups`: of
  // the gradient's sum.
  OutlierSelection(const StateMemory& memory, Communicator& communicator, const OutlierRule& rule,
                   std::vector<LanguageModel::OutlierLayer> layers, uint64_t groups);

  // Makes the model retain what has been chosen. Call for every new model.
  void attach(LanguageModel& model) const;

  // Around each of this rank's gradient groups in an attempt at a step (counted from 0).
  void begin_group(uint64_t step, LanguageModel& model);
  void end_group(uint64_t step, LanguageModel& model);
  // Collective, after the last group.
  void end_attempt(uint64_t step);
  // After the step. Chooses at the end of the window, and then the model retains.
  void after_step(uint64_t step, bool applied, LanguageModel& model);

  // What a checkpoint after `steps` steps must keep: norms inside the window, the choice after it.
  std::vector<ReplicatedArray> arrays(uint64_t steps) const;
  // ExitCode::bad_data where the checkpoint lacks what it should have, or it does not fit the layers.
  void load(const CheckpointInfo& checkpoint);

 private:
  bool records(uint64_t step) const { return first_step_ <= step && step < end_step_; }
  void choose();
  std::vector<int64_t> chosen() const;

  Communicator& communicator_;
  uint64_t first_step_, end_step_;  // the window
  std::vector<LanguageModel::OutlierLayer> layers_;
  Partition partition_;  // of the channels of all layers
  std::optional<TreeReduction> reduction_;
  Tensor group_norms_;          // f32 [channels of all layers], of one group, where the model computes
  std::span<float> group_sum_;  // the same in the reduction
  Tensor norms_;                // f32 [channels of all layers]
  Tensor step_norms_;           // of the last attempt
  Tensor choice_;  // f32 [retained channels of all layers]: numbers as in LanguageModel::set_outlier_channels()
  bool made_ = false;
};

// Makes the model of a checkpoint retain what its run has chosen, where it has.
void retain_outliers_of(const CheckpointInfo& checkpoint, LanguageModel& model);

}  // namespace nibble
