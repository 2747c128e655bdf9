#include "trainer/run/training_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "dist/base/error.h"
#include "dist/base/hash.h"
#include "dist/device/profile.h"
#include "dist/ranks/device_communicator.h"
#include "model/blocks/block_kind.h"
#include "optim/gradient_norm.h"
#include "quant/tensor/tensor_copy.h"
#include "trainer/checkpoint/optimizer_arrays.h"
#include "trainer/compute/memory_remedy.h"
#include "trainer/compute/run_device.h"
#include "trainer/compute/step_schedule.h"
#include "trainer/compute/training_model.h"

namespace nibble {

namespace {

// Returns the vocabulary size of the model: the configured one, or that of the data rounded up.
int64_t settled_vocabulary(const RunConfig& config, const Mixture& data) {
  const auto of_data = static_cast<int64_t>(data.vocab_size());
  if (config.model.vocab_size == 0) return round_up(of_data, block_rows);
  if (config.model.vocab_size < of_data) {
    throw Error(ExitCode::bad_config,
                fmt::format("model.vocab_size is {}, but the vocabulary of the training shards has {} tokens",
                            config.model.vocab_size, of_data),
                data.loader(0).shard(0).states_vocabulary()
                    ? "set model.vocab_size=0 to take that of the data, or tokenize with a smaller --vocab-size"
                    : "correct data.vocab_size, or set model.vocab_size=0 to take it");
  }
  return config.model.vocab_size;
}

// Returns a hash of everything that must be equal in two attempts at a step.
uint64_t attempt_hash(double loss, double grad_norm, const Tensor& gradient) {
  const std::array<double, 2> numbers{loss, grad_norm};
  const HostCopy values(gradient);
  return hash64(values.bytes(), hash64(std::as_bytes(std::span(numbers))));
}

}  // namespace

TrainingSession::TrainingSession(Communicator& communicator, const RunConfig& config, const CheckpointInfo* checkpoint)
    : communicator_(communicator),
      config_(config),
      schedule_(step_schedule(config, communicator.size())),
      device_(device_of(config)),
      learning_rate_schedule_(schedule_config(config)) {
  run_together(communicator_, [&] {
    exchange_.emplace(communicator_, config_);
    data_ = std::make_unique<TrainingData>(config_, checkpoint);
    config_.resume.allow.clear();  // it holds for one resume
    config_.model.vocab_size = settled_vocabulary(config, data_->train());
    nibble::validate(config_.model);
    set_gpu_reserve(gpu_bytes_of_libraries(communicator_, device_));
    refuse_slow_paths(config_);
    config_.train.head_chunk_tokens = settled_head_chunk(config_, device_, checkpoint == nullptr);
    explain_lack_of_memory([&] { build_model(config_.recipe); },
                           [&] { return memory_remedy(savings_of_model(config_)); });
    reserve_for_late_switch();
  });
  build_state();
  if (checkpoint == nullptr && !config_.model_origin.from.empty()) {
    start_ = std::make_unique<ModelStart>(communicator_, config_, memory_->layout, data_->train());
  }
  run_together(communicator_, [&] {
    micro_batches_ = std::make_unique<MicroBatchQueue>(data_->train(), micro_batch_shape(config_), device_,
                                                       /*ahead=*/device_ != DeviceKind::cpu);
  });
}

TrainingSession::~TrainingSession() = default;

void TrainingSession::build_model(const Recipe& recipe) {
  model_.reset();  // frees its memory before the new model takes its own
  model_ = make_training_model(config_, recipe);
  model_->set_exchange(*exchange_);
  states_.attach(*model_);
}

// Makes another model, with its own memory plan, when the recipe switches formats. No state is lost: a model keeps
// nothing from one step to the next except the buffers that it is bound to.
void TrainingSession::follow_recipe(uint64_t step) {
  const auto steps = static_cast<uint64_t>(config_.train.steps);
  const bool late = step >= switch_step(config_.recipe, steps);
  if (late == switched_) return;
  set_gpu_reserve(0);  // libraries have taken what they need
  run_together(communicator_, [&] { build_model(recipe_at(config_.recipe, step, steps)); });
  switched_ = late;
}

// On a GPU the memory of the later model is kept free from the start.
void TrainingSession::reserve_for_late_switch() {
  if (device_ == DeviceKind::cpu) return;
  set_gpu_reserve(gpu_reserve() + bytes_of_late_switch(config_, *model_));
}

// Collective.
void TrainingSession::add_run_states() {
  const std::vector<uint64_t> bounds = boundaries(memory_->owned);
  const auto rank = static_cast<size_t>(communicator_.rank());
  asked_ = add_states(
      states_,
      {.communicator = communicator_,
       .config = config_,
       .model = *model_,
       .schedule = &schedule_,
       .weights = {
           .begin = bounds[rank],
           .end = bounds[rank + 1],
           .read = [this](std::span<float> values) { memory_->optimizers.read_weights(values, memory_->weights); },
           .write =
               [this](std::span<const float> values) { memory_->optimizers.set_weights(values, memory_->weights); }}});
}

// Collective.
void TrainingSession::build_state() {
  device_communicator_ = make_device_communicator(communicator_, device_, config_.comm.timeout_s, config_.cuda.strict);
  Communicator& exchange = device_communicator_ ? *device_communicator_ : communicator_;
  memory_ = std::make_unique<RankMemory>(config_, schedule_, exchange, *model_, device_);
  add_run_states();
  const auto build = [&] { memory_->build(*model_, states_); };
  const auto remedy = [&] {
    std::vector<MemorySaving> savings = savings_of_model(config_);
    savings.push_back(saving_of_groups(config_, communicator_.size(), [&](const RunConfig& changed) {
      SharedArena gradients("gradients", exchange, device_);
      make_gradient_reduction(config_.comm.reduction, gradients, exchange, memory_->owned,
                              step_schedule(changed, communicator_.size()));
      return gradients.arena().planned_bytes();
    }));
    if (device_ != DeviceKind::cpu && !config_.cuda.offload_optimizer) {
      savings.push_back({"cuda.offload_optimizer=true", memory_->device_state.planned_bytes()});
    }
    return memory_remedy(std::move(savings));
  };
  explain_lack_of_memory(
      [&] {
        memory_->shared.commit(build);
        run_together(communicator_, [&] {
          memory_->device_state.commit();
          memory_->host_state.commit();
          build();
          states_.attach(*model_);
        });
      },
      remedy);
}

std::vector<std::string> TrainingSession::warnings() const {
  std::vector<std::string> warnings = data_->warnings();
  if (!config_.fault.throws.empty()) {
    warnings.push_back(fmt::format("a rank is going to throw an error: fault.throw is {}", config_.fault.throws));
  }
  const int ranks = communicator_.size();
  const int working = schedule_.working_lanes();
  if (working < ranks) {
    warnings.push_back(
        fmt::format("{} of {} ranks have no work: a step has {} micro-batches; take fewer ranks, a smaller "
                    "train.micro_batch_sequences or a larger train.tokens_per_step",
                    ranks - working, ranks, schedule_.groups().micro_batches()));
  }
  return warnings;
}

void TrainingSession::initialize_weights() {
  const ParameterTable& table = model_->parameters();
  const int rank = communicator_.rank();
  std::vector<float> values(memory_->owned.elements(rank));
  float* next = values.data();
  for (const Range& range : memory_->owned.ranges(rank)) {
    initialize(table, config_.run.seed, range.begin, range.end, next);
    next += range.count();
  }
  if (start_) start_->read(communicator_, memory_->owned, values);
  start_.reset();
  memory_->optimizers.set_weights(values, memory_->weights);
  gather_weights();
}

void TrainingSession::gather_weights() {
  memory_->gather->gather(memory_->weights);
  model_->set_weights_changed();
}

void TrainingSession::take_weights_of_masters() {
  std::vector<float> values(memory_->owned.elements(communicator_.rank()));
  memory_->optimizers.read_weights(values, memory_->weights);
  memory_->optimizers.set_weights(values, memory_->weights);
}

CheckpointState TrainingSession::checkpoint_state(uint64_t step) const {
  const int rank = communicator_.rank();
  CheckpointState state;
  state.step = step;
  state.tokens = data_->tokens(step);
  state.seed = config_.run.seed;
  state.config_yaml = resolved_yaml(config_);
  state.data = data_->state(step);
  state.optimizers = optimizer_infos(memory_->optimizers);
  state.parallel.order = name_of(schedule_.order());
  state.owned = &memory_->owned;
  state.arrays = memory_->checkpoint_arrays();
  StateWriter writer(state, rank);
  states_.save(step, writer);
  return state;
}

void TrainingSession::load(const CheckpointInfo& checkpoint) {
  run_together(communicator_, [&] {
    load_array(checkpoint, memory_->layout, weights_array(memory_->weights, memory_->layout));
    for (const CheckpointArray& array : optimizer_arrays(memory_->optimizers, memory_->layout))
      load_array(checkpoint, memory_->layout, array);
    states_.load(StateReader(checkpoint, memory_->owned, communicator_.rank()));
    // The run before may have gathered its weights in another way (comm.gather).
    if (config_.optimizer.master_dtype == DType::f32) take_weights_of_masters();
  });
  gather_weights();
  states_.attach(*model_);
}

uint64_t TrainingSession::first_sample(uint64_t step, uint64_t micro_batch) const {
  return data_->samples(step) + micro_batch * static_cast<uint64_t>(config_.train.micro_batch_sequences);
}

// Loads this rank's micro-batch in a slot, and announces the one that comes after it: in this step, or in the next one.
MicroBatch& TrainingSession::load_micro_batch(uint64_t step, uint64_t slot) {
  const int rank = communicator_.rank();
  communicator_.control().at(fmt::format("data of micro-batch {}", *schedule_.micro_batch(slot, rank)));
  std::optional<uint64_t> next;
  if (const std::optional<uint64_t> in_step = schedule_.micro_batch(slot + 1, rank)) {
    next = first_sample(step, *in_step);
  } else if (step + 1 < static_cast<uint64_t>(config_.train.steps)) {
    next = first_sample(step + 1, *schedule_.micro_batch(0, rank));
  }
  return micro_batches_->get(first_sample(step, *schedule_.micro_batch(slot, rank)), next);
}

// With `again`, nothing that an earlier attempt has left in memory is used except weights and data.
void TrainingSession::accumulate_gradients(uint64_t step, bool again) {
  StepEvent event{.model = *model_, .step = step, .again = again};
  for (event.slot = 0; event.slot < schedule_.slots(); ++event.slot) {
    const std::span<float> gradients = memory_->reduction->begin_slot();
    if (gradients.empty()) {
      exchange_->bind(model_->parameters(), memory_->weights, {});
      model_->walk_forward_backward();
    } else {
      compute_micro_batch(event, gradients);
    }
    memory_->reduction->end_slot();
    states_.end_slot(event);
  }
  memory_->results->read();
}

void TrainingSession::compute_micro_batch(StepEvent& event, std::span<float> gradients) {
  const float loss_scale = 1.0F / static_cast<float>(config_.train.tokens_per_step);
  const uint64_t micro_batch = *schedule_.micro_batch(event.slot, communicator_.rank());
  const StepContext context{
      .seed = config_.run.seed, .step = narrow<uint32_t>(event.step), .micro_batch = narrow<uint32_t>(micro_batch)};
  MicroBatch& batch = load_micro_batch(event.step, event.slot);
  const MicroBatchTensors tensors{
      .weights = memory_->weights,
      .gradients = Tensor(gradients.data(), DType::f32, {static_cast<int64_t>(gradients.size())}, device_),
      .tokens = batch.tokens(),
      .targets = batch.targets(),
      .document_starts = batch.document_starts(),
      .context = context,
      .loss_scale = loss_scale};
  exchange_->bind(model_->parameters(), memory_->weights, tensors.gradients);
  // Weights are then quantised for each micro-batch, so that the count of non-finite values does not depend on who
  // computes what.
  if (event.again) model_->set_weights_changed();
  model_->take(batch.tokens(), batch.targets(), batch.document_starts());
  batch.set_copied();
  event.micro_batch = micro_batch;
  event.tensors = &tensors;
  states_.begin_micro_batch(event);
  if (memory_->reduction->takes_early() && !states_.reads_gradients(event)) {
    exchange_->set_completed([this](uint32_t bucket) {
      const Range complete = memory_->layout.buckets()[bucket].range;
      memory_->reduction->complete(complete.begin, complete.end);
    });
  }
  model_->start_forward_backward(context, loss_scale);
  exchange_->set_completed({});
  memory_->results->keep(event.slot, *model_);
  states_.end_micro_batch(event);
  event.tensors = nullptr;
}

TrainingSession::Computed TrainingSession::compute(uint64_t step, bool again) {
  const StepEvent event{.model = *model_, .step = step, .again = again};
  states_.begin_attempt(event);
  // An error of one rank inside the passes ends the run (dist/watch/control.h): the ranks do not meet again.
  exchange_->begin_step(step + 1);
  accumulate_gradients(step, again);
  exchange_->begin_step(0);
  memory_->results->gather(communicator_);
  const std::span<float> shard = memory_->reduction->reduce_scatter();
  const Tensor gradient(shard.data(), DType::f32, {static_cast<int64_t>(shard.size())}, device_);
  states_.end_attempt(event);
  const GradientNorm norm = gradient_norm(communicator_, memory_->owned, gradient);

  StepAttempt attempt{.loss = memory_->results->loss() / static_cast<double>(config_.train.tokens_per_step),
                      .grad_norm = norm.norm,
                      .non_finite = memory_->results->non_finite(),
                      .first_rank = memory_->results->first_bad_rank()};
  const bool finite = std::isfinite(attempt.loss) && norm.finite && attempt.non_finite == 0;
  // A fault of one machine may have changed these numbers on one rank only, so all ranks must agree.
  attempt.finite = communicator_.all_reduce_max(finite ? 0 : 1) == 0;
  return {attempt, gradient};
}

bool TrainingSession::ends_run(const StepResult& result) const {
  return result.product_check && !result.product_check->difference.empty() &&
         config_.guard.product_mismatch == RunConfig::ProductMismatch::stop;
}

nlohmann::json TrainingSession::products() const {
  return products_of(*model_, communicator_, schedule_);
}

StepResult TrainingSession::train_step(uint64_t step) {
  follow_recipe(step);
  StepResult result;
  result.learning_rate = learning_rate(learning_rate_schedule_, step);
  Computed computed = compute(step, /*again=*/false);
  result.decision = asked_.guard->after_attempt(computed.attempt.finite);
  if (result.decision == StepDecision::retry) {
    const auto hash = [&] {
      return attempt_hash(computed.attempt.loss, computed.attempt.grad_norm, computed.gradient);
    };
    const uint64_t before = hash();
    result.first = computed.attempt;
    computed = compute(step, /*again=*/true);
    result.same_bits = communicator_.all_reduce_max(hash() == before ? 0 : 1) == 0;
    result.decision = asked_.guard->after_attempt(computed.attempt.finite);
  }
  result.attempt = computed.attempt;
  result.telemetry = asked_.telemetry->collect(step);
  result.product_check = asked_.product_check->collect(step);
  if (ends_run(result)) return result;
  const bool applied = result.decision == StepDecision::apply;
  const StepEvent event{.model = *model_, .step = step, .again = result.first.has_value(), .applied = applied};
  states_.before_update(event);
  if (applied) {
    memory_->optimizers.update({.step = step,
                                .learning_rate = result.learning_rate,
                                .grad_scale = clip_scale(computed.attempt.grad_norm, config_.optimizer.clip_norm),
                                .seed = config_.run.seed},
                               {.weights = memory_->weights, .gradient = computed.gradient});
    gather_weights();
  }
  if (states_.after_update(event)) gather_weights();
  if (!applied) model_->set_weights_changed();  // the next step must count non-finite weights again
  return result;
}

std::optional<std::vector<ValidationLoss>> TrainingSession::validate(uint64_t step,
                                                                     const std::function<bool()>& interrupted) {
  follow_recipe(step == 0 ? 0 : step - 1);
  exchange_->bind(model_->parameters(), memory_->weights, {});
  auto losses = data_->validation()->losses(communicator_, *model_, step, interrupted);
  // This count belongs to no step. The next step must find non-finite weights itself, so it quantises them again.
  if (model_->take_non_finite_count() != 0) model_->set_weights_changed();
  return losses;
}
void TrainingSession::set_peak(uint64_t step, double peak) {
  config_.schedule.peaks[step] = peak;
  learning_rate_schedule_ = schedule_config(config_);
}

}  // namespace nibble
