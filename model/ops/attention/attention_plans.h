// The choice among the engines of a library for attention, once for each shape: the first engine, in the library's
// order, that gives a plan, and that passes the trial (attention_trial.h) if it is for training. Where there is none,
// nibble's exact kernels compute. Internal to attention and its tests.
#pragma once

#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "model/ops/attention/attention_library.h"

namespace nibble::cuda {

class AttentionPlans {
 public:
  // `library` must outlive the object.
  explicit AttentionPlans(const AttentionLibrary& library) : library_(library) {}

  // The plans of a shape, or why there are none. For training there are those of both passes or none; otherwise there
  // is one of the forward pass only.
  struct Planned {
    std::unique_ptr<AttentionPlan> forward, backward;
    std::string refusal;
    bool too_large = false;  // an engine was left out for its workspace

    int64_t workspace_floats() const;  // of a shape with plans
  };
  // Plans the shape unless it is planned already. Plans whose workspace is larger than `most_floats` are left out.
  const Planned& plan(const AttentionShape& shape, bool training, int64_t most_floats = any_workspace);

  // The plan to run a pass with, on a workspace of so many floats. It is null where the exact kernels are to run:
  // because the library refuses the shape, as `refusal` says, or because the workspace, which was planned for another
  // shape, is too small for every engine. A forward pass of a shape that was not planned is planned now.
  struct Choice {
    const AttentionPlan* plan = nullptr;
    std::string refusal;
  };
  Choice choose(const AttentionShape& shape, AttentionPass pass, int64_t floats);

  // Returns a text such as "cuDNN 9.19.0 (engine 6 forward, 5 backward)".
  std::string describe(const Planned& planned) const;

  // Logs, the first time only, that the exact kernels compute.
  void say_exact(const AttentionShape& shape, const std::string& reason);

 private:
  static constexpr int64_t any_workspace = std::numeric_limits<int64_t>::max();
  using Objection = std::function<std::string(const AttentionPlan&)>;

  void plan_training(const AttentionShape& shape, Planned& planned) const;
  // Returns the first plan of a pass to which there is no objection; null, and why, if there is none.
  std::unique_ptr<AttentionPlan> first_plan(const AttentionShape& shape, AttentionPass pass, const Objection& objection,
                                            std::string& refusal) const;

  const AttentionLibrary& library_;
  std::recursive_mutex mutex_;
  std::map<std::pair<AttentionShape, bool>, Planned> planned_;  // by shape, and whether it is for training
  bool said_ = false;
};

// The plans of this process, of cuDNN unless a test has brought a library.
AttentionPlans& attention_plans();
// From now on `library` computes attention, or cuDNN again if it is null. All plans are forgotten. For tests.
void use_attention_library(const AttentionLibrary* library);

}  // namespace nibble::cuda
