// The log metrics.jsonl of a run: one JSON object per line (docs/formats.md), written by rank 0.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "trainer/report/json_lines.h"
#include "trainer/report/telemetry_record.h"

namespace nibble {

// Returns the bits of a double as 16 hexadecimal digits.
std::string hexadecimal_bits(double value);

// What a run has read of a part of its training data.
struct PartProgress {
  std::string name = {};
  uint64_t tokens = 0;
  double epochs = 0;
};

struct StepMetrics {
  uint64_t step = 0;    // number of updates, this one included
  uint64_t tokens = 0;  // number of tokens that the run has trained on
  double loss = 0;      // mean cross-entropy of the step's tokens before the update, nats
  double grad_norm = 0;
  double learning_rate = 0;
  double tokens_per_second = 0;
  double mfu = 0;           // model FLOPs / (time * measured peak of all ranks)
  bool applied = true;      // false for a step that was skipped because it was not finite
  bool retried = false;     // the step was computed a second time, because the first attempt was not finite
  uint64_t non_finite = 0;  // non-finite values in the inputs of quantisers in the last attempt
  uint64_t skipped_total = 0;
  std::vector<PartProgress> parts = {};  // of a mixture; empty for one training set
  double seconds = 0;                    // RunHistory's count of seconds at this step; not written
};

// The Kullback-Leibler divergence from one model's predictions to another's, nats a token: the mean over targets.
struct Divergence {
  double mean = 0;
  // The spread of the means of sequences over the root of their number: sequences, not their tokens, are taken to be
  // independent. Nothing for one sequence.
  std::optional<double> standard_error;
};

// The loss of a model on one validation set.
struct ValidationLoss {
  std::string name = {};  // as in data.validation; "" for a set without a name
  double loss = 0;        // mean cross-entropy, nats a token
  // Nats of all targets / ln 2 / bytes of their text, where the tokenizer is known. The end of a document has nats and
  // no bytes.
  std::optional<double> bits_per_byte = {};
  std::optional<Divergence> divergence = {};
  std::string data_fingerprint = {};  // stands for the windows that were read; "" in files of older versions
};
// Returns "loss", "loss_hex", "bits_per_byte" (null if not known), "data_fingerprint" and, if there is a divergence,
// "kl" and "kl_standard_error" of the first set; if sets have names, also its name, "set", and "sets", which maps each
// name to these figures.
nlohmann::json to_json(const std::vector<ValidationLoss>& losses);
// Returns a text such as "loss 5.2498, 2.1904 bits a byte", or "web loss 5.2498, code loss 3.0121".
std::string describe(const std::vector<ValidationLoss>& losses);

class MetricsLog {
 public:
  // Opens the file as JsonLines does.
  explicit MetricsLog(const std::filesystem::path& path) : lines_(path) {}

  void step(const StepMetrics& metrics);
  void validation(uint64_t step, uint64_t tokens, const std::vector<ValidationLoss>& losses);
  void checkpoint(uint64_t step, const std::string& directory, double seconds);
  // `details` is an object; its members are added to the line.
  void warning(uint64_t step, std::string_view text, const nlohmann::json& details);
  // Writes an event: "run" at the start of every process, "resume" after it when training continues from a checkpoint,
  // "telemetry" and "profile".
  void event(const nlohmann::json& object) { lines_.write(object); }

 private:
  JsonLines lines_;
};

// The contents of metrics.jsonl. A step that was computed again after a resume is in it once.
//
// Its `seconds` are those of the wall clock that the run's processes have worked so far: the times between two lines
// of a process are added up, and the time between processes is not counted. Steps that were computed twice count twice.
struct RunHistory {
  struct Validation {
    uint64_t step = 0;
    uint64_t tokens = 0;
    std::vector<ValidationLoss> losses;  // at least one; the first is the run's validation loss
    double seconds = 0;
    double loss() const { return losses.front().loss; }
  };
  // What a reader of curves wants to know beside them.
  struct Event {
    uint64_t step = 0;
    std::string kind;  // "resume", "switch", "checkpoint", "product_check" or a warning's kind
    std::string text;
    double seconds = 0;
  };
  std::vector<StepMetrics> steps;  // ascending
  std::vector<Validation> validations;
  std::vector<TelemetryRecord> telemetry;  // ascending
  std::vector<Event> events;               // in the order of their lines
  std::string run;                         // the last "run" event, as JSON text
  double seconds = 0;                      // at the last line
  double last_time = 0;                    // of the last line, seconds since 1970; 0 without lines
};
// Adds one line, without its line feed. Throws nlohmann::json::exception if it is not a line of metrics.
void add_line(RunHistory& history, const std::string& line);
// Throws ExitCode::missing_input if there is no such file, and ExitCode::bad_data with the line's number if a line is
// not JSON.
RunHistory read_history(const std::filesystem::path& metrics_file);

}  // namespace nibble
