// What `nibble plan` says of a run before it starts. plan_text.cpp writes it for people, plan_json.cpp for programs.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "trainer/plan/memory_plan.h"
#include "trainer/plan/planned_run.h"
#include "trainer/plan/speed_estimate.h"

namespace nibble {

// A change of the configuration that saves memory.
struct MemoryChange {
  std::string setting;  // "train.recompute=all"
  uint64_t saves = 0;   // of MemoryPlan::needed
  bool fits = false;    // it alone makes the run fit
  bool changes_numbers = false;
};

struct RunPlan {
  struct Group {
    std::string what;
    uint64_t parameters = 0;
  };

  PlannedRun run;
  uint64_t parameters = 0;  // all that are trained
  uint64_t active_parameters = 0;
  std::vector<Group> groups;
  std::string layers;                           // "24 linear: forward nvfp4, ..."
  std::map<std::string, double> forward_share;  // of the forward FLOPs, by the format in which they are computed
  double flops_per_token = 0;
  std::optional<size_t> tensors;  // of the export for Hugging Face; none if it has no architecture for the model
  std::string export_problem;     // why not
  MemoryPlan memory;
  std::vector<MemoryChange> changes;  // where it does not fit: what would save memory
  std::vector<std::string>
      fits_with;  // the first settings that together make it fit; empty if it fits, or nothing does
  SpeedEstimate speed;
  double hours = 0;
  std::optional<double> watts;  // of a rank's device
  std::optional<double> energy_kwh;

  uint64_t tokens() const;
};

// `watts` is what a rank's device draws; without it the data sheet's, if there is one.
RunPlan make_plan(const PlanRequest& request, std::optional<double> watts);

// The power of a machine and of its cooling, over that of its devices: an assumption.
constexpr double power_overhead = 1.5;

std::string plan_text(const RunPlan& plan);
nlohmann::ordered_json plan_json(const RunPlan& plan);

}  // namespace nibble
