// Which run `nibble plan` plans: its configuration, read without data, the number of its ranks and their device.
#pragma once

#include <string>
#include <vector>

#include "trainer/config/run_config.h"
#include "trainer/plan/device_table.h"

namespace nibble {

struct PlanRequest {
  std::string config;  // a run's configuration, or a file of configs/models
  std::string recipe;  // empty: the configuration's
  std::string device;  // empty: see read_planned_run()
  int64_t ranks = 1;
  std::vector<std::string> overrides;  // key=value
};

struct PlannedRun {
  RunConfig config;  // with the device's kind in the key `device`
  int ranks = 1;
  const PlannedDevice* device = nullptr;  // null: this machine's CPU
  std::vector<std::string> assumed;       // what neither the request nor the file says: "train.steps=4728 (...)"
};

// A file that only describes a model gets a run around it. Without a device it is this machine, or the first GPU of the
// table for a configuration that cannot run on a CPU. Prepares the process for planning: its compute threads, and the
// described GPU. Throws ExitCode::usage for numbers of ranks and devices that do not exist, ExitCode::bad_config for a
// vocabulary that only the data know and for more ranks than a step has micro-batches, and what reading a configuration
// throws.
PlannedRun read_planned_run(const PlanRequest& request);

}  // namespace nibble
