// metrics.jsonl: what happened in a run, one JSON object a line, append-only (docs/formats.md). Written by rank 0, one
// write a line, so that a killed run leaves whole lines but perhaps the last.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "trainer/report/telemetry_record.h"

namespace nibble {

// The bits of a double as 16 hexadecimal digits: equal exactly when the bits are equal.
std::string hexadecimal_bits(double value);

struct StepMetrics {
  uint64_t step = 0;    // updates done, this one included
  uint64_t tokens = 0;  // trained on so far
  double loss = 0;      // mean cross-entropy of the step's tokens before the update, nats
  double grad_norm = 0;
  double learning_rate = 0;
  double tokens_per_second = 0;
  double mfu = 0;           // model FLOPs / (time * measured peak of all ranks)
  bool applied = true;      // false: a skipped step, which was not finite
  bool retried = false;     // computed a second time, since the first attempt was not finite
  uint64_t non_finite = 0;  // values that quantisers met in the last attempt
  uint64_t skipped_total = 0;
};

class MetricsLog {
 public:
  // Opens for appending; cuts off an incomplete last line that a killed run left behind.
  explicit MetricsLog(const std::filesystem::path& path);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  void step(const StepMetrics& metrics);
  void validation(uint64_t step, uint64_t tokens, double loss);
  void checkpoint(uint64_t step, const std::string& directory, double seconds);
  // details: an object, whose members the line gets too.
  void warning(uint64_t step, std::string_view text, const nlohmann::json& details);
  // "run" at the start of every process, "resume" after it when training goes on from a checkpoint, "telemetry".
  void event(const nlohmann::json& object);

 private:
  void write_line(const nlohmann::json& object);
  int descriptor_ = -1;
  std::filesystem::path path_;
};

// What a run's metrics.jsonl says after resumes: points that a resume made again count once.
struct RunHistory {
  struct Validation {
    uint64_t step = 0;
    uint64_t tokens = 0;
    double loss = 0;
  };
  std::vector<StepMetrics> steps;  // ascending
  std::vector<Validation> validations;
  std::vector<TelemetryRecord> telemetry;  // ascending
  std::string run;                         // the last "run" event, as JSON text
};
// Errors: missing_input, bad_data (a line that is not JSON, with its number).
RunHistory read_history(const std::filesystem::path& metrics_file);

}  // namespace nibble
