#include "trainer/run/training_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "dist/base/file.h"
#include "dist/base/log.h"
#include "dist/base/signals.h"
#include "dist/base/stopwatch.h"
#include "dist/base/text.h"
#include "dist/device/thread_pool.h"
#include "dist/watch/heartbeat.h"
#include "model/cost.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/compute/run_device.h"
#include "trainer/directory/journal.h"
#include "trainer/record/run_recorder.h"
#include "trainer/run/best_validation.h"
#include "trainer/run/run_profile.h"
#include "trainer/run/steering.h"
#include "trainer/run/step_warning.h"

namespace nibble {

namespace {

constexpr uint64_t largest_gemm_plan = 1 << 20;  // bytes
const Stopwatch process_time;                    // started before main()

class TrainingLoop {
 public:
  TrainingLoop(Communicator& communicator, TrainingSession& session, const RunDirectory& directory)
      : communicator_(communicator),
        session_(session),
        config_(session.config()),
        directory_(directory),
        heartbeat_(directory.heartbeat() / fmt::format("rank-{}", communicator.rank())),
        steering_(communicator, session, directory),
        best_(config_.checkpoint.keep_best) {}

  ExitCode run(const std::optional<CheckpointInfo>& checkpoint, LaterCheckpoints later);

 private:
  bool leader() const { return communicator_.rank() == 0; }
  uint64_t tokens_after(uint64_t step) const { return session_.data().tokens(step); }
  uint64_t total_steps() const { return static_cast<uint64_t>(config_.train.steps); }
  // How many validations the run makes.
  uint64_t validations() const {
    return config_.eval.every == 0 ? 1 : div_ceil(total_steps(), static_cast<uint64_t>(config_.eval.every));
  }
  static bool due(uint64_t step, int64_t every) { return every > 0 && step % static_cast<uint64_t>(every) == 0; }

  void enter(Phase phase, uint64_t step);
  void check_space(uint64_t step);
  uint64_t start_fresh();
  uint64_t continue_from(const CheckpointInfo& checkpoint, LaterCheckpoints later);
  void open_logs(uint64_t first_step, bool resumed);
  void restore_best(const CheckpointInfo& checkpoint);
  void agree_on_best() {
    best_step_ = static_cast<uint64_t>(communicator_.all_reduce_max(static_cast<int64_t>(best_.step())));
  }
  bool validation_pending(uint64_t step);
  void announce_switch(uint64_t step);
  void train_one(uint64_t step);
  void log_profile(const std::optional<ProfileRecord>& record);
  void log_products();
  void log_product_check(const StepResult& result);
  [[noreturn]] void give_up(uint64_t step) const;
  bool validate_after(uint64_t step, const std::function<bool()>& interrupted);
  void save(uint64_t step);
  void restore_gemm_plan();
  void keep_gemm_plan();
  std::string stop_reason(uint64_t step) const;
  ExitCode stopped_after(uint64_t step);
  bool time_is_up() const;
  bool wants_to_stop() const { return stop_requested() || time_is_up(); }  // on this rank

  Communicator& communicator_;
  TrainingSession& session_;
  const RunConfig& config_;
  const RunDirectory& directory_;
  Heartbeat heartbeat_;
  Steering steering_;
  BestValidation best_;                  // on rank 0; the others learn its step
  uint64_t best_step_ = 0;               // that of best_, on all ranks
  double peak_flops_ = 0;                // FLOP/s of all ranks together
  std::unique_ptr<RunProfile> profile_;  // null if profile.every is 0
  std::string gemm_plan_;                // the text that the run directory keeps
  bool products_logged_ = false;
  std::unique_ptr<RunRecorder> recorder_;  // null until the run is set up
};

// Says, for people and for the other ranks, what this rank is doing.
void TrainingLoop::enter(Phase phase, uint64_t step) {
  heartbeat_.set(step, name_of(phase));
  communicator_.control().begin(phase, step);
}

void TrainingLoop::check_space(uint64_t step) {
  if (step == total_steps()) return;
  const RunConfig::Checkpoint& checkpoint = config_.checkpoint;
  check_space_for_run(communicator_, directory_.path(), session_.checkpoint_state(step),
                      {.steps = total_steps(),
                       .every = static_cast<uint64_t>(checkpoint.every),
                       .keep_last = static_cast<uint64_t>(checkpoint.keep_last),
                       .keep_every = static_cast<uint64_t>(checkpoint.keep_every),
                       .validations = checkpoint.keep_best.empty() ? 0 : validations()});
}

uint64_t TrainingLoop::start_fresh() {
  session_.initialize_weights();
  check_space(0);
  save(0);
  return 0;
}

uint64_t TrainingLoop::continue_from(const CheckpointInfo& checkpoint, LaterCheckpoints later) {
  session_.load(checkpoint);
  check_space(checkpoint.step);
  if (later == LaterCheckpoints::leave) return checkpoint.step;
  on_leader(communicator_, [&] {
    const std::vector<uint64_t> steps = abandon_checkpoints_after(directory_.path(), checkpoint.step);
    if (!steps.empty()) {
      log_info("abandoned  the later checkpoint{} of step{} {}, kept as NAME.abandoned", steps.size() == 1 ? "" : "s",
               steps.size() == 1 ? "" : "s", fmt::join(steps, ", "));
    }
  });
  return checkpoint.step;
}

void TrainingLoop::open_logs(uint64_t first_step, bool resumed) {
  // All ranks measure the peak at the same time, and the clocks of all profiles start together.
  communicator_.barrier();
  const auto profile_every = static_cast<uint64_t>(config_.profile.every);
  if (profile_every != 0)
    profile_ = std::make_unique<RunProfile>(communicator_, profile_every, directory_.path(), device_of(config_));
  peak_flops_ = peak_flops(config_) * communicator_.size();
  run_together(communicator_, [&] {
    const RecordStart start{.step = first_step, .tokens = tokens_after(first_step), .resumed = resumed};
    recorder_ = std::make_unique<RunRecorder>(config_, directory_, start, leader());
  });
  on_leader(communicator_, [&] {
    recorder_->event({{"event", "run"},
                      {"nibble", NIBBLE_VERSION},
                      {"recipe", config_.recipe.name},
                      {"seed", config_.run.seed},
                      {"steps", config_.train.steps},
                      {"tokens_per_step", config_.train.tokens_per_step},
                      {"ranks", communicator_.size()},
                      {"ranks_working", session_.ranks_working()},
                      {"threads_per_rank", compute_threads()},
                      {"parameters", model_cost(config_.model).parameters},
                      {"data_fingerprint", session_.data().train().fingerprint()},
                      {"measured_peak_flops", peak_flops_}});
    if (resumed) recorder_->event({{"event", "resume"}, {"step", first_step}});
    for (const std::string& line : session_.describe()) log_info("{}", line);
    for (const std::string& line : session_.warnings()) log_warning("{}", line);
    std::string peak = "peak not known";
    if (peak_flops_ > 0) {
      peak = fmt::format("{} peak {:.1f} GFLOP/s in all",
                         device_of(config_) == DeviceKind::cpu ? "measured" : "data sheet's", peak_flops_ / 1e9);
    }
    log_info("ranks      {} with {} threads each, {}", communicator_.size(), compute_threads(), peak);
  });
}

// A best checkpoint that is not in the directory, as in a fork, is forgotten: the next validation gives one that is.
void TrainingLoop::restore_best(const CheckpointInfo& checkpoint) {
  on_leader(communicator_, [&] {
    best_.load(checkpoint);
    const std::filesystem::path best = directory_.checkpoints() / step_directory_name(best_.step());
    if (best_.step() == 0 || std::filesystem::exists(best)) return;
    log_info("best       the checkpoint of step {} is not here: the best one is found anew", best_.step());
    best_.forget();
  });
}

// Returns whether the validation of this step is missing. A request to stop can interrupt a validation after the step's
// checkpoint was written; the resumed run then validates first.
bool TrainingLoop::validation_pending(uint64_t step) {
  if (!session_.has_validation() || step == 0 || !(due(step, config_.eval.every) || step == total_steps()))
    return false;
  int64_t missing = 0;
  on_leader(communicator_, [&] {
    const auto history = read_history(directory_.metrics_file());
    const auto made = std::ranges::find(history.validations, step, &RunHistory::Validation::step);
    missing = made == history.validations.end() ? 1 : 0;
    // The checkpoint of this step is older than the validation if the one before was interrupted.
    if (missing == 0) best_.offer(step, made->losses);
  });
  return communicator_.all_reduce_max(missing) != 0;
}

void TrainingLoop::log_profile(const std::optional<ProfileRecord>& record) {
  if (!record) return;
  on_leader(communicator_, [&] {
    log_info("profile    {}", describe(*record));
    recorder_->event(to_event(*record));
  });
}

// Says once, after the first step of this process, who multiplies what.
void TrainingLoop::log_products() {
  if (std::exchange(products_logged_, true)) return;
  const nlohmann::json layers = session_.products();
  on_leader(communicator_, [&] {
    log_info("products   {}", summary_of_products(layers));
    recorder_->event({{"event", "products"}, {"layers", layers}});
  });
}

void TrainingLoop::log_product_check(const StepResult& result) {
  if (!result.product_check) return;
  const ProductCheckRecord& check = *result.product_check;
  const bool equal = check.difference.empty();
  const std::string text =
      fmt::format("step {}: {} of {} by {} ({}) is not the product of its operands: {}", check.step, check.product,
                  check.layer, check.library, check.algorithm, check.difference);
  on_leader(communicator_, [&] {
    nlohmann::json event = {{"event", "product_check"},
                            {"step", check.step},
                            {"layer", check.layer},
                            {"product", check.product},
                            {"equal", equal}};
    if (!equal) {
      event.update({{"library", check.library}, {"algorithm", check.algorithm}, {"difference", check.difference}});
      if (!session_.ends_run(result)) log_warning("{}", text);
    }
    recorder_->event(event);
  });
  if (!session_.ends_run(result)) return;
  throw AgreedError(
      ExitCode::peer_lost, text,
      "resume from the last checkpoint; if it comes again, test the machine's memory and its processor or "
      "GPU, or set cuda.gemm to exact; guard.product_mismatch: warn goes on in spite of it");
}

void TrainingLoop::give_up(uint64_t step) const {
  const StepGuard& guard = session_.guard();
  throw AgreedError(
      ExitCode::numerics,
      fmt::format("step {} is not finite: {} skipped steps in a row (guard.skip_in_a_row allows {}), {} in the whole "
                  "run (guard.skip_total allows {})",
                  step, guard.skipped().in_a_row, guard.budget().in_a_row, guard.skipped().total, guard.budget().total),
      "resume from the last checkpoint with a lower optimizer.learning_rate (resume.allow), another recipe, or a "
      "larger "
      "budget of skipped steps");
}

// Rank 0 only.
void TrainingLoop::announce_switch(uint64_t step) {
  if (!config_.recipe.late_switch || step - 1 != switch_step(config_.recipe, total_steps())) return;
  const LateSwitch& late_switch = *config_.recipe.late_switch;
  log_info("step {}: late switch, {} GEMMs of linear layers run in {} from now on", step, name_of(late_switch.gemms),
           name_of(late_switch.to));
  recorder_->event(
      {{"event", "switch"}, {"step", step}, {"gemms", name_of(late_switch.gemms)}, {"to", name_of(late_switch.to)}});
}

void TrainingLoop::train_one(uint64_t step) {
  enter(Phase::train, step);
  on_leader(communicator_, [&] { announce_switch(step); });
  if (profile_) profile_->begin_step(step);
  const Stopwatch stopwatch;
  const StepResult result = session_.train_step(step - 1);
  const double seconds = stopwatch.seconds();
  const std::optional<ProfileRecord> profiled = profile_ ? profile_->end_step(step) : std::nullopt;
  log_products();
  log_product_check(result);
  const double tokens_per_second = static_cast<double>(config_.train.tokens_per_step) / seconds;
  const double training_flops = model_cost(config_.model).training_flops_per_token;
  const StepMetrics metrics{.step = step,
                            .tokens = tokens_after(step),
                            .loss = result.attempt.loss,
                            .grad_norm = result.attempt.grad_norm,
                            .learning_rate = result.learning_rate,
                            .tokens_per_second = tokens_per_second,
                            .mfu = peak_flops_ > 0 ? training_flops * tokens_per_second / peak_flops_ : 0,
                            .applied = result.decision == StepDecision::apply,
                            .retried = result.first.has_value(),
                            .non_finite = result.attempt.non_finite,
                            .skipped_total = session_.guard().skipped().total,
                            .parts = session_.data().progress(step)};
  on_leader(communicator_, [&] {
    recorder_->step(metrics);
    if (result.first) {
      const StepWarning warning = step_warning(step, result);
      recorder_->warning(step, warning.text, warning.details);
    }
    if (result.telemetry) recorder_->telemetry(*result.telemetry, metrics.tokens);
  });
  recorder_->show(metrics, seconds);
  log_profile(profiled);
  if (result.decision == StepDecision::give_up) give_up(step);
}

// Returns false if interrupted() became true on some rank before the validation was complete.
bool TrainingLoop::validate_after(uint64_t step, const std::function<bool()>& interrupted) {
  enter(Phase::validation, step);
  const auto losses = session_.validate(step, interrupted);
  if (!losses) return false;
  on_leader(communicator_, [&] {
    recorder_->validation(step, tokens_after(step), *losses);
    best_.offer(step, *losses);
  });
  agree_on_best();
  recorder_->line(fmt::format("validation after step {}: {}{}", step, describe(*losses),
                              best_step_ == step ? ", the best so far" : ""));
  return true;
}

void TrainingLoop::restore_gemm_plan() {
  std::string plan;
  on_leader(communicator_, [&] {
    if (std::filesystem::exists(directory_.gemm_plan())) {
      plan = read_file(directory_.gemm_plan(), largest_gemm_plan);
    }
  });
  plan = broadcast_string(communicator_, plan, 0);
  run_together(communicator_, [&] {
    if (!plan.empty()) use_gemm_plan(config_, plan);
  });
}

void TrainingLoop::keep_gemm_plan() {
  const std::string plan = gemm_plan(config_);
  if (plan == gemm_plan_) return;
  gemm_plan_ = plan;
  write_file(directory_.gemm_plan(), plan);
}

void TrainingLoop::save(uint64_t step) {
  enter(Phase::checkpoint, step);
  on_leader(communicator_, [&] { keep_gemm_plan(); });
  const Stopwatch stopwatch;
  CheckpointState state = session_.checkpoint_state(step);
  best_.save(state);
  const auto path = save_checkpoint(communicator_, directory_.path(), std::move(state));
  on_leader(communicator_, [&] {
    prune_checkpoints(directory_.path(), step,
                      {.keep_last = static_cast<uint64_t>(config_.checkpoint.keep_last),
                       .keep_every = static_cast<uint64_t>(config_.checkpoint.keep_every),
                       .best = best_.step()});
    if (recorder_) recorder_->checkpoint(step, path, stopwatch.seconds());
  });
}

// Returns whether train.max_minutes is over. The clock of rank 0 decides for all.
bool TrainingLoop::time_is_up() const {
  return leader() && config_.train.max_minutes > 0 && process_time.seconds() >= 60 * config_.train.max_minutes;
}

// As rank 0 sees it: a signal may have come to another rank.
std::string TrainingLoop::stop_reason(uint64_t step) const {
  if (steering_.stop_asked()) return "nibble control";
  if (!stop_requested() && time_is_up()) return "train.max_minutes";
  if (!stop_requested() && step == static_cast<uint64_t>(config_.train.stop_at)) return "train.stop_at";
  return "signal";
}

ExitCode TrainingLoop::stopped_after(uint64_t step) {
  if (profile_) log_profile(profile_->finish());
  const std::string reason = stop_reason(step);
  on_leader(communicator_, [&] { record_stop(directory_.path(), step, reason); });
  std::string text;
  if (reason == "train.max_minutes") text = fmt::format(", {} minutes ({})", config_.train.max_minutes, reason);
  if (steering_.stop_asked()) text = fmt::format(", as {} asked", reason);
  recorder_->line(fmt::format("stopped after step {}{}: the checkpoint is saved, `nibble resume {}` goes on", step,
                              text, directory_.path().string()));
  return ExitCode::start_again;
}

ExitCode TrainingLoop::run(const std::optional<CheckpointInfo>& checkpoint, LaterCheckpoints later) {
  restore_gemm_plan();
  const uint64_t first = checkpoint ? continue_from(*checkpoint, later) : start_fresh();
  open_logs(first, checkpoint.has_value());
  if (checkpoint) restore_best(*checkpoint);
  // No limit of time breaks off this validation: where it takes longer than the limit, the run would never go on.
  if (validation_pending(first) && !validate_after(first, stop_requested)) return stopped_after(first);
  const auto stop_at = static_cast<uint64_t>(config_.train.stop_at);
  const auto wants = [this] { return wants_to_stop(); };
  for (uint64_t step = first + 1; step <= total_steps(); ++step) {
    train_one(step);
    const bool last = step == total_steps();
    const Wishes wishes = steering_.after_step(step, wants_to_stop(), *recorder_);
    bool stop = wishes.stop;
    if (!stop && session_.has_validation() && (last || due(step, config_.eval.every)))
      stop = !validate_after(step, wants);
    // A request to stop leaves out the validation, and the resumed run computes it. So a run that is stopped after its
    // last step is not complete if it has a validation set.
    const bool complete = last && !(stop && session_.has_validation());
    stop = stop || step == stop_at;
    const bool due_now = wishes.checkpoint || due(step, config_.checkpoint.every) || best_step_ == step;
    if (stop || last || due_now) save(step);
    steering_.finish();
    if (stop && !complete) return stopped_after(step);
  }
  if (profile_) log_profile(profile_->finish());
  for (const PartProgress& part : session_.data().progress(total_steps())) {
    recorder_->line(fmt::format("data part {}: {} tokens read, {:.2f} epochs", part.name, with_thousands(part.tokens),
                                part.epochs));
  }
  recorder_->line(fmt::format("done: {} steps, {} tokens", total_steps(), with_thousands(tokens_after(total_steps()))));
  return ExitCode::ok;
}

}  // namespace

ExitCode run_training(Communicator& communicator, TrainingSession& session, const RunDirectory& directory,
                      const std::optional<CheckpointInfo>& checkpoint, LaterCheckpoints later) {
  return TrainingLoop(communicator, session, directory).run(checkpoint, later);
}

}  // namespace nibble
