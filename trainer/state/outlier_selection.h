// Chooses the input channels of each linear layer that a recipe retains in eight bits
// (model/layers/outlier_channels.h): the channels with the largest squared norms, summed over the micro-batches of the
// applied steps of a window. The values are added in the order of the gradient's sum (dist/zero/tree_reduction.h), so
// that the choice does not depend on the number of ranks. It is made once in a run. Here and in checkpoints channel c
// of a layer has the number c + features_in of all layers before it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dist/ranks/communicator.h"
#include "dist/zero/gradient_reduction.h"
#include "dist/zero/placement.h"
#include "dist/zero/schedule.h"
#include "model/language_model.h"
#include "trainer/state/step_state.h"

namespace nibble {

// A linear layer: its input channels, and how many of them the recipe retains (0: the layer is left unchanged).
struct OutlierLayer {
  std::string name;
  int64_t features_in = 0;
  int64_t count = 0;
};
std::vector<OutlierLayer> outlier_layers(const LanguageModel& model);

class OutlierSelection final : public StepState {
 public:
  // Returns whether a layer of the model retains channels.
  static bool needed(const LanguageModel& model);
  // `model` follows the recipe as it is before its late switch. `schedule` is null for a model that is
  // not trained, which takes the choice of a checkpoint.
  OutlierSelection(Communicator& communicator, const OutlierRule& rule, const LanguageModel& model,
                   const Schedule* schedule);

  std::string_view name() const override { return "outliers"; }
  void allocate(const StateMemory& memory) override;
  // Makes the model retain the chosen channels, if the choice has been made.
  void attach(LanguageModel& model) override;
  // In the window's steps the model forms the norms of each micro-batch from zero, end_slot() adds them to the sum, and
  // end_attempt() gives all ranks the sum.
  void begin_micro_batch(const StepEvent& event) override;
  void end_micro_batch(const StepEvent& event) override;
  void end_slot(const StepEvent& event) override;
  void end_attempt(const StepEvent& event) override;
  // At the end of the window it chooses the channels and makes the model retain them.
  bool after_update(const StepEvent& event) override;
  // Saves the norms during the window, and the choice after it.
  void save(uint64_t steps, StateWriter& writer) const override;
  void load(const StateReader& reader) override;

 private:
  bool records(uint64_t step) const { return first_step_ <= step && step < end_step_; }
  void choose();
  void load_choice(const StateReader& reader, int64_t count);

  Communicator& communicator_;
  uint64_t first_step_, end_step_;  // the window
  std::vector<OutlierLayer> layers_;
  const Schedule* schedule_;
  Layout channels_;  // of all layers, one behind the other
  Placement owned_;
  std::unique_ptr<GradientReduction> reduction_;
  Tensor micro_batch_norms_;     // f32 [channels of all layers], on the model's device
  Tensor norms_;                 // f32 [channels of all layers], summed over the applied steps of the window
  Tensor step_norms_;            // f32 [channels of all layers], the norms of the last attempt
  std::vector<int32_t> chosen_;  // the retained channels of all layers, ascending; empty before the choice
  Tensor choice_;                // i32: a view of chosen_
};

}  // namespace nibble
