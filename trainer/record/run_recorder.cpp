#include "trainer/record/run_recorder.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "dist/base/log.h"
#include "trainer/directory/journal.h"
#include "trainer/record/tensorboard_config.h"

namespace nibble {

namespace {

uint64_t bytes_of_files(const std::filesystem::path& directory) {
  uint64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    std::error_code ignored;
    const uintmax_t size = entry.file_size(ignored);
    if (!ignored) bytes += size;
  }
  return bytes;
}

}  // namespace

RunRecorder::RunRecorder(const RunConfig& config, const RunDirectory& directory, const RecordStart& start, bool records)
    : progress_(config, start.step, records) {
  if (!records) return;
  metrics_ = std::make_unique<MetricsLog>(directory.metrics_file());
  if (!config.log.tensorboard) return;
  tensorboard_ = std::make_unique<TensorboardWriter>(directory.tensorboard());
  draws_tokens_ = journal_has_beginning(directory.path());
  if (start.resumed) tensorboard_->session_start(axis(start.step, start.tokens) + 1);
  write_configuration(*tensorboard_, config, axis(start.step, start.tokens));
}

void RunRecorder::step(const StepMetrics& metrics) {
  metrics_->step(metrics);
  if (!tensorboard_) return;
  const uint64_t at = axis(metrics.step, metrics.tokens);
  tensorboard_->scalar("loss/train", metrics.loss, at);
  tensorboard_->scalar("grad_norm", metrics.grad_norm, at);
  tensorboard_->scalar("learning_rate", metrics.learning_rate, at);
  tensorboard_->scalar("tokens_per_second", metrics.tokens_per_second, at);
  tensorboard_->scalar("mfu", metrics.mfu, at);
  // Both ways to count, whichever of them the axis has.
  tensorboard_->scalar("progress/steps", static_cast<double>(metrics.step), at);
  tensorboard_->scalar("progress/tokens", static_cast<double>(metrics.tokens), at);
  for (const PartProgress& part : metrics.parts) tensorboard_->scalar("epochs/" + part.name, part.epochs, at);
  tensorboard_->flush();
}

void RunRecorder::telemetry(const TelemetryRecord& record, uint64_t tokens) {
  metrics_->event(to_event(record));
  if (!tensorboard_) return;
  for (const NamedScalar& scalar : scalars_of(record)) {
    tensorboard_->scalar(scalar.tag, scalar.value, axis(record.step, tokens));
  }
}

void RunRecorder::validation(uint64_t step, uint64_t tokens, const std::vector<ValidationLoss>& losses) {
  metrics_->validation(step, tokens, losses);
  if (!tensorboard_) return;
  const auto write = [&](const std::string& suffix, const ValidationLoss& set) {
    tensorboard_->scalar("loss/validation" + suffix, set.loss, axis(step, tokens));
    if (!set.bits_per_byte) return;
    tensorboard_->scalar("bits_per_byte/validation" + suffix, *set.bits_per_byte, axis(step, tokens));
  };
  write("", losses.front());
  for (const ValidationLoss& set : losses) {
    if (!set.name.empty()) write("/" + set.name, set);
  }
}

void RunRecorder::checkpoint(uint64_t step, const std::filesystem::path& directory, double seconds) {
  metrics_->checkpoint(step, directory.filename(), seconds);
  line(fmt::format("checkpoint {}: {:.1f} MB in {:.2f} s", directory.filename().string(),
                   static_cast<double>(bytes_of_files(directory)) / 1e6, seconds));
}

void RunRecorder::warning(uint64_t step, std::string_view text, const nlohmann::json& details) {
  log_warning("{}", text);
  metrics_->warning(step, text, details);
}

}  // namespace nibble
