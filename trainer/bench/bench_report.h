// Writes the results of `nibble bench`: tables for people, JSON for programs.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "trainer/bench/bench_group.h"
#include "trainer/bench/bench_training.h"

namespace nibble {

struct BenchReport {
  std::string processor;
  std::string instruction_set;
  int available_threads = 1;
  BenchSettings settings;
  std::vector<BenchGroupResult> groups;  // the report shows the peaks of the first group
  std::vector<TrainingResult> training;
};

// Returns the processor's name, such as "AMD EPYC 9B45", or "unknown".
std::string processor_name();

// Returns the FP32 multiply-adds of all threads together, divided by those of one thread times their number; 1 if it
// was not measured. A value far below 1 means that others use the machine and that figures of several threads are too
// low.
double parallel_efficiency(const BenchGroupResult& group);

std::string machine_text(const BenchReport& report);
std::string peaks_text(const BenchGroupResult& group);
std::string group_text(const BenchGroupResult& group);
std::string training_text(const TrainingResult& result);

// Writes the report as JSON. docs/performance.md lists the keys.
nlohmann::ordered_json to_json(const BenchReport& report);

}  // namespace nibble
