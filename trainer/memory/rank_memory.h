// What a rank of a run holds beside its model: weights, gradient sums, the optimizers' state, and what its states
// remember. A run and `nibble plan` build the same object, so that the plan is what the run takes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "dist/ranks/communicator.h"
#include "dist/ranks/shared_arena.h"
#include "dist/zero/gradient_reduction.h"
#include "dist/zero/placement.h"
#include "dist/zero/schedule.h"
#include "model/language_model.h"
#include "optim/optimizer.h"
#include "trainer/checkpoint/checkpoint_content.h"
#include "trainer/config/run_config.h"
#include "trainer/memory/micro_batch_results.h"
#include "trainer/memory/weight_gather.h"
#include "trainer/state/run_states.h"
#include "trainer/state/step_state.h"

namespace nibble {

// Returns train.head_chunk_tokens of a run. A fresh run on a GPU decides it where the key is 0; a value of 0 that is
// kept means what suits a CPU (model/objectives/head.h).
int64_t settled_head_chunk(const RunConfig& config, DeviceKind device, bool fresh);

// Returns whether the optimizers' state stays on the CPU while the weights are on a GPU.
bool offloads_optimizer(const RunConfig& config, DeviceKind device);

// Returns by how much the model that a late switch of the recipe makes is larger than that of the start.
uint64_t bytes_of_late_switch(const RunConfig& config, const LanguageModel& model);

struct RankMemory {
  // `ranks` exchange what lies on the device: those of the run, or on several GPUs a DeviceCommunicator of them. No
  // memory is taken. Configuration, ranks and schedule must outlive the object; the model need not.
  RankMemory(const RunConfig& run_config, const Schedule& run_schedule, Communicator& ranks, const LanguageModel& model,
             DeviceKind device);
  RankMemory(const RankMemory&) = delete;
  RankMemory& operator=(const RankMemory&) = delete;

  // Builds everything in its place: while the arenas measure, and again when they have been committed.
  void build(const LanguageModel& model, StepStates& states);

  // Returns what has been planned, a line for each kind that is not empty. The sum is that of the three arenas.
  const std::vector<MemoryLine>& lines() const { return lines_; }

  // Returns the arrays of a checkpoint that hold weights and optimizers' state: the same on every rank, but for values
  // and slices.
  std::vector<CheckpointArray> checkpoint_arrays() const;

  const RunConfig& config;
  const Schedule& schedule;
  Communicator& ranks;
  const Layout layout;    // of the parameters
  const Placement owned;  // the elements whose gradients are summed and updated by each rank
  SharedArena shared;     // weights and gradients
  Arena device_state;     // the optimizers' state and what else lies on the device
  Arena host_state;       // on the CPU
  OptimizerList optimizers;
  Tensor weights;  // [flat_size], model dtype
  std::unique_ptr<GradientReduction> reduction;
  std::optional<WeightGather> gather;
  std::optional<MicroBatchResults> results;

 private:
  template <class Build>
  void add_line(const char* what, const Arena& arena, const Build& build);

  std::vector<MemoryLine> lines_;
};

}  // namespace nibble
