// Everything a rank trains with: model, data, optimizer, gradient sum. One object is one process's share of a run.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/loader.h"
#include "dist/ranks/communicator.h"
#include "dist/ranks/shared_arena.h"
#include "dist/zero/gradient_reduction.h"
#include "dist/zero/partition.h"
#include "model/language_model.h"
#include "optim/adamw/adamw.h"
#include "optim/schedule.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/run_config.h"
#include "trainer/run/micro_batch.h"
#include "trainer/run/step_guard.h"
#include "trainer/run/weight_gather.h"
#include "trainer/state/recipe_state.h"
#include "trainer/state/telemetry.h"

namespace nibble {

// One computation of a step's loss and gradient: a pure function of weights, data and seed. The same bits on every rank
// and for every number of ranks, but for the count of a first attempt.
struct StepAttempt {
  double loss = 0;  // mean over the step's tokens, nats
  double grad_norm = 0;
  uint64_t non_finite = 0;  // values that quantisers met; an operand that is made again counts again
  bool finite = true;       // on every rank: loss, norm, and all that quantisers met
  int first_rank = -1;      // the lowest rank whose micro-batches were not finite; -1: none, or only their sum
};

struct StepResult {
  StepDecision decision = StepDecision::apply;  // skip and give_up: the weights are untouched
  StepAttempt attempt;                          // the last one
  std::optional<StepAttempt> first;             // the one before it, which was not finite
  bool same_bits = true;                        // both attempts had the same loss and gradient on every rank
  double learning_rate = 0;
  std::optional<TelemetryRecord> telemetry;  // rank 0, where it was due: of the last attempt
};

class TrainingSession {
 public:
  // Collective. Opens the data, settles the vocabulary size, plans and takes all memory. Weights are zero until
  // initialize_weights() or load().
  TrainingSession(Communicator& communicator, const RunConfig& config);
  ~TrainingSession();

  // The configuration with the vocabulary size filled in.
  const RunConfig& config() const { return config_; }
  const LanguageModel& model() const { return *model_; }
  // What identifies the training data: names, sizes and hashes of the shards, in order.
  std::string data_fingerprint() const;
  bool has_validation() const { return validation_loader_ != nullptr; }
  // What the run will use, a line each: parameters, memory, data.
  std::vector<std::string> describe() const;

  void initialize_weights();
  void load(const CheckpointInfo& checkpoint);
  CheckpointState checkpoint_state(uint64_t step) const;

  // Collective. The optimizer step after `step` completed ones. One that is not finite is computed once more, from
  // weights that are quantised anew.
  StepResult train_step(uint64_t step);
  const StepGuard& guard() const { return guard_; }

  // Collective. Mean cross-entropy of the validation set (nats a token) with the weights after `step` steps and the
  // recipe of the last of them; nothing if interrupted() became true on some rank meanwhile.
  std::optional<double> validate(uint64_t step, const std::function<bool()>& interrupted);

 private:
  void build_model(const Recipe& recipe);
  void build_state();
  void follow_recipe(uint64_t step);
  void gather_weights();
  void take_weights_of_masters();
  void accumulate_gradients(uint64_t step, bool again);
  struct Computed {
    StepAttempt attempt;
    Tensor gradient;  // f32, this rank's shard, on its device
  };
  Computed compute(uint64_t step, bool again);
  int first_bad_rank() const;
  void gather_by_group(std::vector<double>& values);

  Communicator& communicator_;
  RunConfig config_;
  DeviceKind device_;
  std::unique_ptr<Communicator> device_communicator_;  // of GPUs; on the CPU there is none
  std::unique_ptr<Loader> train_loader_;
  std::unique_ptr<Loader> validation_loader_;
  std::unique_ptr<LanguageModel> model_;
  bool switched_ = false;  // model_ follows the recipe's late switch

  std::unique_ptr<SharedArena> shared_arena_;  // weights and gradients
  std::unique_ptr<Arena> state_arena_;         // optimizer state
  std::unique_ptr<Arena> recipe_arena_;        // what a recipe remembers on the CPU
  std::unique_ptr<Partition> partition_;
  Tensor weights_;  // [flat_size], model dtype
  std::unique_ptr<GradientReduction> reduction_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<WeightGather> weight_gather_;
  std::unique_ptr<RecipeState> recipe_state_;
  ScheduleConfig schedule_;
  StepGuard guard_;

  std::unique_ptr<MicroBatch> micro_batch_;
  std::unique_ptr<Telemetry> telemetry_;
  std::vector<double> group_losses_;      // summed cross-entropy of each gradient group of the step
  std::vector<double> group_non_finite_;  // non-finite values that its quantisers met
};

}  // namespace nibble
