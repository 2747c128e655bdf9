// What a run tells of itself while it trains: metrics.jsonl, TensorBoard's event files, and the progress on standard
// output. Rank 0 records; on other ranks every function but line() must be left uncalled, and line() shows nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "trainer/config/run_config.h"
#include "trainer/directory/run_directory.h"
#include "trainer/record/progress_display.h"
#include "trainer/record/tensorboard.h"
#include "trainer/report/metrics.h"
#include "trainer/report/telemetry_record.h"

namespace nibble {

// Where the process begins or goes on.
struct RecordStart {
  uint64_t step = 0;    // steps that are complete
  uint64_t tokens = 0;  // of these steps
  bool resumed = false;
};

class RunRecorder {
 public:
  // Opens the files on the rank that records.
  RunRecorder(const RunConfig& config, const RunDirectory& directory, const RecordStart& start, bool records);

  // `seconds` is what the step took.
  void step(const StepMetrics& metrics);
  // Shows the step on standard output. Call it after step(), on any rank.
  void show(const StepMetrics& metrics, double seconds) { progress_.step(metrics, seconds); }
  void telemetry(const TelemetryRecord& record, uint64_t tokens);
  void validation(uint64_t step, uint64_t tokens, const std::vector<ValidationLoss>& losses);
  void checkpoint(uint64_t step, const std::filesystem::path& directory, double seconds);
  // `details` is an object; its members are added to the line.
  void warning(uint64_t step, std::string_view text, const nlohmann::json& details);
  void event(const nlohmann::json& object) { metrics_->event(object); }

  // Prints a line above the progress. Call it on any rank.
  void line(const std::string& text) { progress_.line(text); }

 private:
  // Where TensorBoard draws a step.
  uint64_t axis(uint64_t step, uint64_t tokens) const { return draws_tokens_ ? tokens : step; }

  std::unique_ptr<MetricsLog> metrics_;             // null on ranks that do not record
  std::unique_ptr<TensorboardWriter> tensorboard_;  // null where log.tensorboard is off
  bool draws_tokens_ = true;  // false for the rest of a run that an older version started: it drew steps
  ProgressDisplay progress_;
};

}  // namespace nibble
