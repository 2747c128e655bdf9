#include "model/ops/attention/attention_plans.h"

#include <algorithm>
#include <optional>

#include "dist/base/log_line.h"
#include "model/ops/attention/attention_trial.h"
#include "model/ops/attention/cudnn_attention.h"

namespace nibble::cuda {
namespace {

// Plans live until the process ends, because the driver may be gone when destructors run.
std::unique_ptr<AttentionPlans>& plans_of_process() {
  static auto& plans = *new auto(std::make_unique<AttentionPlans>(cudnn_attention()));
  return plans;
}

const char* const too_large = "its workspace is larger than the one that was planned for other shapes";

const char* name_of(AttentionPass pass) {
  return pass == AttentionPass::forward ? "forward" : "backward";
}

}  // namespace

int64_t AttentionPlans::Planned::workspace_floats() const {
  return std::max(forward->workspace_floats(), backward == nullptr ? 0 : backward->workspace_floats());
}

std::unique_ptr<AttentionPlan> AttentionPlans::first_plan(const AttentionShape& shape, AttentionPass pass,
                                                          const Objection& objection, std::string& refusal) const {
  refusal = library_.name() + " has no engine for the " + name_of(pass) + " pass with head_dim " +
            std::to_string(shape.head_dim) + (shape.document_mask ? " and a mask of documents" : "");
  const auto note_refusal = [&, subject = refusal](const Error& error) {
    if (error.code() != ExitCode::bad_config) throw;
    refusal = subject + ": " + error.what();
  };
  std::vector<AttentionLibrary::Engine> engines;
  try {
    engines = library_.engines(shape, pass);
  } catch (const Error& error) {
    note_refusal(error);
  }
  for (const AttentionLibrary::Engine& engine : engines) {
    try {
      std::unique_ptr<AttentionPlan> plan = engine();
      const std::string finding = objection(*plan);
      if (finding.empty()) return plan;
      refusal = "engine " + std::to_string(plan->engine()) + " of " + library_.name() + ", " + name_of(pass) +
                " pass: " + finding;
    } catch (const Error& error) {
      note_refusal(error);
    }
  }
  return nullptr;
}

void AttentionPlans::plan_training(const AttentionShape& shape, Planned& planned) const {
  std::optional<AttentionTrial> trial;  // its memory is taken when there is a plan to try
  const auto tried = [&](AttentionPass pass) {
    return [&, pass](const AttentionPlan& plan) {
      if (!trial) trial.emplace(shape);
      const std::string finding = trial->run(plan, pass);
      if (!finding.empty()) {
        write_log(LogLevel::warning, "attention: engine " + std::to_string(plan.engine()) + " of " + library_.name() +
                                         " is not used for the " + name_of(pass) + " pass: " + finding);
      }
      return finding;
    };
  };
  planned.forward = first_plan(shape, AttentionPass::forward, tried(AttentionPass::forward), planned.refusal);
  if (planned.forward == nullptr) return;
  planned.backward = first_plan(shape, AttentionPass::backward, tried(AttentionPass::backward), planned.refusal);
  if (planned.backward == nullptr) planned.forward.reset();
}

const AttentionPlans::Planned& AttentionPlans::plan(const AttentionShape& shape, bool training, int64_t most_floats) {
  const std::lock_guard lock(mutex_);
  const auto [place, is_new] = planned_.try_emplace({shape, training});
  Planned& planned = place->second;
  if (!is_new) return planned;
  planned.refusal = library_.problem();
  if (!planned.refusal.empty()) return planned;
  if (training) {
    plan_training(shape, planned);
  } else {
    const auto fits = [&](const AttentionPlan& plan) -> std::string {
      if (plan.workspace_floats() <= most_floats) return {};
      planned.too_large = true;
      return too_large;
    };
    planned.forward = first_plan(shape, AttentionPass::forward, fits, planned.refusal);
  }
  if (planned.forward != nullptr) planned.refusal.clear();
  return planned;
}

AttentionPlans::Choice AttentionPlans::choose(const AttentionShape& shape, AttentionPass pass, int64_t floats) {
  const std::lock_guard lock(mutex_);
  const auto exact = [&](const std::string& reason) {
    say_exact(shape, reason);
    return Choice{};
  };
  const auto trained = planned_.find({shape, true});
  const bool is_planned = trained != planned_.end();
  const bool forward = pass == AttentionPass::forward;
  if (!is_planned && !forward) return exact("only the forward pass of this shape was planned");
  const Planned& planned = is_planned ? trained->second : plan(shape, /*training=*/false, floats);
  const AttentionPlan* const plan = (forward ? planned.forward : planned.backward).get();
  if (plan == nullptr) {
    if (!is_planned) exact(planned.refusal);
    return {nullptr, planned.too_large ? "" : planned.refusal};
  }
  if (plan->workspace_floats() > floats) return exact(too_large);
  return {plan, {}};
}

std::string AttentionPlans::describe(const Planned& planned) const {
  std::string text = library_.name() + " (engine " + std::to_string(planned.forward->engine()) + " forward";
  if (planned.backward != nullptr) text += ", " + std::to_string(planned.backward->engine()) + " backward";
  return text + ")";
}

void AttentionPlans::say_exact(const AttentionShape& shape, const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (said_) return;
  said_ = true;
  write_log(LogLevel::info, "attention of " + std::to_string(shape.sequences) + " x " +
                                std::to_string(shape.sequence_length) +
                                " tokens is computed by nibble's exact kernels, which are slow: " + reason);
}

AttentionPlans& attention_plans() {
  return *plans_of_process();
}

void use_attention_library(const AttentionLibrary* library) {
  plans_of_process() = std::make_unique<AttentionPlans>(library == nullptr ? cudnn_attention() : *library);
}

}  // namespace nibble::cuda
