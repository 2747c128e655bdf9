// The part of a run that one rank computes: model, data, optimizer and gradient sum. Each process has one object.
// Implemented in training_session.cpp; what it says of itself in the log is session_description.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dist/ranks/communicator.h"
#include "dist/zero/schedule.h"
#include "model/language_model.h"
#include "optim/schedule.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/run_config.h"
#include "trainer/huggingface/model_start.h"
#include "trainer/memory/rank_memory.h"
#include "trainer/run/micro_batch.h"
#include "trainer/run/step_exchange.h"
#include "trainer/run/training_data.h"
#include "trainer/state/run_states.h"
#include "trainer/state/step_state.h"

namespace nibble {

// The outcome of one computation of a step's loss and gradient, which is a pure function of weights, data and seed. It
// has the same bits on every rank and for every number of ranks, except `non_finite` of a first attempt.
struct StepAttempt {
  double loss = 0;  // mean over the step's tokens, nats
  double grad_norm = 0;
  uint64_t non_finite = 0;  // non-finite values in the inputs of quantisers; each quantisation counts anew
  bool finite = true;       // loss, norm and all inputs of quantisers are finite on every rank
  int first_rank = -1;      // that of the first micro-batch that was not finite; -1 = none (perhaps only their sum)
};

struct StepResult {
  StepDecision decision = StepDecision::apply;  // skip and give_up leave the weights unchanged
  StepAttempt attempt;                          // the last attempt
  std::optional<StepAttempt> first;             // the attempt before it, if there was one: it was not finite
  bool same_bits = true;                        // both attempts had the same loss and gradient on every rank
  double learning_rate = 0;
  std::optional<TelemetryRecord> telemetry;         // of the last attempt, on rank 0, if it was due
  std::optional<ProductCheckRecord> product_check;  // of the last attempt, if it was due
};

class TrainingSession {
 public:
  // Collective. Opens the data, decides the vocabulary size, plans and takes all memory. A run that goes on from a
  // checkpoint names it, and its data go on there (TrainingData). Weights are zero until initialize_weights() or
  // load(). A fresh run on a GPU also decides train.head_chunk_tokens, if the key is 0; a resumed run keeps what it
  // finds, also on another device. A fresh run opens the model that it starts from (model.from), which must fit.
  TrainingSession(Communicator& communicator, const RunConfig& config, const CheckpointInfo* checkpoint = nullptr);
  ~TrainingSession();

  // The configuration with what the session has decided filled in.
  const RunConfig& config() const { return config_; }
  const LanguageModel& model() const { return *model_; }
  // What the run remembers. A state that is added takes part in every step that follows.
  StepStates& states() { return states_; }
  const TrainingData& data() const { return *data_; }
  // Returns how many ranks have micro-batches.
  int ranks_working() const { return schedule_.working_lanes(); }
  bool has_validation() const { return data_->validation() != nullptr; }
  // Gives the learning rate another peak from the update on that follows `step` completed ones. config() has it.
  void set_peak(uint64_t step, double peak);
  // What the user should know before the run starts.
  std::vector<std::string> warnings() const;
  // Describes what the run will use, one line each: parameters, memory, data.
  std::vector<std::string> describe() const;

  // Weights of model.from, and fresh ones where there are none.
  void initialize_weights();
  void load(const CheckpointInfo& checkpoint);
  CheckpointState checkpoint_state(uint64_t step) const;

  // Collective. Computes the optimizer step that follows `step` completed ones. A step that is not finite is computed
  // once more, with all weights quantised again. A step that ends the run changes no weights.
  StepResult train_step(uint64_t step);
  // Returns whether the run must end after this step, because a product of it is wrong.
  bool ends_run(const StepResult& result) const;
  const StepGuard& guard() const { return *asked_.guard; }
  // Collective; call it after a step. Returns who multiplied what (products_of(), trainer/state/product_check.h).
  nlohmann::json products() const;

  // Collective. Returns the losses of the validation sets with the weights after `step` steps and the recipe of the
  // last of them; nothing if interrupted() became true on some rank before the end.
  std::optional<std::vector<ValidationLoss>> validate(uint64_t step, const std::function<bool()>& interrupted);

 private:
  void build_model(const Recipe& recipe);
  void reserve_for_late_switch();
  void add_run_states();
  void build_state();
  void follow_recipe(uint64_t step);
  void gather_weights();
  std::string memory_text() const;
  void take_weights_of_masters();
  uint64_t first_sample(uint64_t step, uint64_t micro_batch) const;
  MicroBatch& load_micro_batch(uint64_t step, uint64_t slot);
  void accumulate_gradients(uint64_t step, bool again);
  void compute_micro_batch(StepEvent& event, std::span<float> gradients);
  struct Computed {
    StepAttempt attempt;
    Tensor gradient;  // f32, this rank's shard, on its device
  };
  Computed compute(uint64_t step, bool again);

  Communicator& communicator_;
  RunConfig config_;
  Schedule schedule_;
  DeviceKind device_;
  std::unique_ptr<Communicator> device_communicator_;  // for data in GPU memory; null on the CPU
  std::unique_ptr<TrainingData> data_;
  std::optional<StepExchange> exchange_;
  std::unique_ptr<LanguageModel> model_;
  bool switched_ = false;  // model_ follows the recipe's late switch

  std::unique_ptr<RankMemory> memory_;
  StepStates states_;
  AskedStates asked_;  // of states_
  ScheduleConfig learning_rate_schedule_;

  std::unique_ptr<MicroBatchQueue> micro_batches_;
  std::unique_ptr<ModelStart> start_;  // of a fresh run that starts from a model, until it has its weights
};

}  // namespace nibble
