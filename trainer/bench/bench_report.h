// What `nibble bench` says: tables for people, JSON for programs.
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
  std::vector<BenchGroupResult> groups;  // the peaks that are shown are those of the first
  std::vector<TrainingResult> training;
};

// "AMD EPYC 9B45", or "unknown".
std::string processor_name();

// What the threads do together over what one does, times their number, of FP32 multiply-adds: far below 1, others use
// the machine, and figures of several threads are too low. 1 where it was not measured.
double parallel_efficiency(const BenchGroupResult& group);

std::string machine_text(const BenchReport& report);
std::string peaks_text(const BenchGroupResult& group);
std::string group_text(const BenchGroupResult& group);
std::string training_text(const TrainingResult& result);

// docs/performance.md lists its keys.
nlohmann::ordered_json to_json(const BenchReport& report);

}  // namespace nibble
