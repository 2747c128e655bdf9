// What a run remembers from one step to the next beside weights and moments, and what watches its steps. Each such
// thing is a StepState. They stand in one list (trainer/state/run_states.h), and the training session walks the list
// at every event of a step: it knows no state by name. The order in the list is the order of calls.
//
// A state has the same bits for every number of ranks and after a resume, and an attempt at a step that is not applied
// does not change it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dist/device/arena.h"
#include "model/language_model.h"
#include "trainer/state/state_storage.h"

namespace nibble {

// The memory of states. Values that the model updates while it computes lie on its device; all others lie on the CPU.
struct StateMemory {
  Arena& host;
  Arena& device;
};

// What one micro-batch is computed from, and its gradients.
struct MicroBatchTensors {
  Tensor weights;    // [flat_size], model dtype
  Tensor gradients;  // f32 [flat_size]; before it in its group there may be others, which they hold too
  Tensor tokens, targets, document_starts;
  StepContext context;
  float loss_scale = 1;
};

struct StepEvent {
  LanguageModel& model;  // that computes the step
  uint64_t step = 0;     // counted from 0
  bool again = false;    // the second attempt at the step
  uint64_t slot = 0;     // of the step's schedule, in the events of a micro-batch and in end_slot()
  // In the events of a micro-batch: its number in the step, and its tensors.
  uint64_t micro_batch = 0;
  const MicroBatchTensors* tensors = nullptr;
  bool applied = false;  // in before_update() and after_update(): the optimizer updates the weights
};

// By default a state does nothing at an event. Only what is called collective may exchange between ranks.
class StepState {
 public:
  StepState() = default;
  StepState(const StepState&) = delete;
  StepState& operator=(const StepState&) = delete;
  virtual ~StepState() = default;

  virtual std::string_view name() const = 0;
  // Called in the measuring pass of the arenas, and again after commit().
  virtual void allocate(const StateMemory&) {}
  // Makes a model use the state. Called for every new model of the run, and after load().
  virtual void attach(LanguageModel&) {}

  // An attempt at a step. Inside it come the slots of the step's schedule (dist/zero/schedule.h) and, in a slot in
  // which this rank is not idle, its micro-batch.
  virtual void begin_attempt(const StepEvent&) {}
  virtual void begin_micro_batch(const StepEvent&) {}
  // Returns whether end_micro_batch() reads this micro-batch's gradients, so that nobody may sum them before.
  virtual bool reads_gradients(const StepEvent&) const { return false; }
  virtual void end_micro_batch(const StepEvent&) {}
  // Called on every rank, also where the rank was idle. Collective if the schedule is in stripes; in rows no rank waits
  // for another one here.
  virtual void end_slot(const StepEvent&) {}
  virtual void end_attempt(const StepEvent&) {}  // collective

  // Collective. Called around the update of every step, also if it is not applied; the weights of all ranks are then
  // those before or after it. after_update() returns, on all ranks alike, whether ranks have changed weights of their
  // shards, so that the weights must be gathered again.
  virtual void before_update(const StepEvent&) {}
  virtual bool after_update(const StepEvent&) { return false; }

  // Saves what a run needs to go on after `steps` steps, and loads it.
  virtual void save(uint64_t, StateWriter&) const {}
  virtual void load(const StateReader&) {}

  // Returns a line for the log, or nothing.
  virtual std::string describe() const { return {}; }
};

// The list. Every function calls that of all states in their order.
class StepStates {
 public:
  template <class State, class... Arguments>
  State& add(Arguments&&... arguments) {
    auto state = std::make_unique<State>(std::forward<Arguments>(arguments)...);
    State& added = *state;
    states_.push_back(std::move(state));
    return added;
  }

  void allocate(const StateMemory& memory);
  void attach(LanguageModel& model);
  void begin_attempt(const StepEvent& event);
  void begin_micro_batch(const StepEvent& event);
  bool reads_gradients(const StepEvent& event) const;  // of any state
  void end_micro_batch(const StepEvent& event);
  void end_slot(const StepEvent& event);
  void end_attempt(const StepEvent& event);
  void before_update(const StepEvent& event);
  bool after_update(const StepEvent& event);  // of any state
  void save(uint64_t steps, StateWriter& writer) const;
  void load(const StateReader& reader);
  // Returns the lines of the states that have one, each after the state's name.
  std::vector<std::string> describe() const;

 private:
  std::vector<std::unique_ptr<StepState>> states_;
};

}  // namespace nibble
