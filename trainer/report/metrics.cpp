#include "trainer/report/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "dist/base/error.h"
#include "trainer/report/json_number.h"

namespace nibble {

namespace {

template <class Points>
void drop_after(Points& points, uint64_t step) {
  std::erase_if(points, [step](const auto& point) { return point.step > step; });
}

nlohmann::json or_null(const std::optional<double>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json();
}

nlohmann::json figures_of(const ValidationLoss& set) {
  nlohmann::json figures = {{"loss", set.loss},
                            {"loss_hex", hexadecimal_bits(set.loss)},
                            {"bits_per_byte", or_null(set.bits_per_byte)},
                            {"data_fingerprint", set.data_fingerprint}};
  if (set.divergence) {
    figures.update({{"kl", set.divergence->mean}, {"kl_standard_error", or_null(set.divergence->standard_error)}});
  }
  return figures;
}

ValidationLoss loss_of(const std::string& name, const nlohmann::json& figures) {
  const auto bits = figures.find("bits_per_byte");
  const bool known = bits != figures.end() && bits->is_number();
  return {.name = name,
          .loss = number_in(figures, "loss"),
          .bits_per_byte = known ? std::optional(bits->get<double>()) : std::nullopt,
          .data_fingerprint = figures.value("data_fingerprint", std::string())};
}

std::vector<ValidationLoss> losses_of(const nlohmann::json& event) {
  const std::string first = event.value("set", std::string());
  std::vector<ValidationLoss> losses{loss_of(first, event)};
  if (!event.contains("sets")) return losses;
  for (const auto& [name, figures] : event.at("sets").items()) {
    if (name != first) losses.push_back(loss_of(name, figures));
  }
  return losses;
}

// Returns kind and text of an event that readers of curves want to know of.
std::optional<std::pair<std::string, std::string>> shown_event(const std::string& event, const nlohmann::json& object) {
  if (event == "resume") return {{event, "training went on from the checkpoint of this step"}};
  if (event == "checkpoint") return {{event, object.value("directory", "")}};
  if (event == "warning") return {{object.value("kind", event), object.value("text", "")}};
  if (event == "switch") {
    return {{event, fmt::format("{} GEMMs go on in {}", object.value("gemms", ""), object.value("to", ""))}};
  }
  if (event == "product_check" && !object.value("equal", true)) {
    return {{event, fmt::format("wrong product {} of {}", object.value("product", ""), object.value("layer", ""))}};
  }
  return std::nullopt;
}

}  // namespace

nlohmann::json to_json(const std::vector<ValidationLoss>& losses) {
  nlohmann::json object = figures_of(losses.front());
  if (losses.front().name.empty()) return object;
  object["set"] = losses.front().name;
  for (const ValidationLoss& set : losses) object["sets"][set.name] = figures_of(set);
  return object;
}

std::string describe(const std::vector<ValidationLoss>& losses) {
  std::string text;
  for (const ValidationLoss& set : losses) {
    text += fmt::format("{}{}loss {:.4f}", text.empty() ? "" : ", ", set.name.empty() ? "" : set.name + " ", set.loss);
    if (set.bits_per_byte) text += fmt::format(", {:.4f} bits a byte", *set.bits_per_byte);
  }
  return text;
}

std::string hexadecimal_bits(double value) {
  return fmt::format("{:016x}", std::bit_cast<uint64_t>(value));
}

void MetricsLog::step(const StepMetrics& metrics) {
  nlohmann::json line = {{"event", "step"},
                         {"step", metrics.step},
                         {"tokens", metrics.tokens},
                         {"loss", metrics.loss},
                         {"loss_hex", hexadecimal_bits(metrics.loss)},
                         {"grad_norm", metrics.grad_norm},
                         {"lr", metrics.learning_rate},
                         {"tokens_per_second", metrics.tokens_per_second},
                         {"mfu", metrics.mfu}};
  for (const PartProgress& part : metrics.parts) {
    line["parts"][part.name] = {{"tokens", part.tokens}, {"epochs", part.epochs}};
  }
  if (metrics.retried) line["retried"] = true;
  if (!metrics.applied) {
    line.update({{"applied", false}, {"non_finite", metrics.non_finite}, {"skipped_total", metrics.skipped_total}});
  }
  lines_.write(line);
}

void MetricsLog::validation(uint64_t step, uint64_t tokens, const std::vector<ValidationLoss>& losses) {
  nlohmann::json line = to_json(losses);
  line.update({{"event", "validation"}, {"step", step}, {"tokens", tokens}});
  lines_.write(line);
}

void MetricsLog::checkpoint(uint64_t step, const std::string& directory, double seconds) {
  lines_.write({{"event", "checkpoint"}, {"step", step}, {"directory", directory}, {"seconds", seconds}});
}

void MetricsLog::warning(uint64_t step, std::string_view text, const nlohmann::json& details) {
  nlohmann::json line = details;
  line.update({{"event", "warning"}, {"step", step}, {"text", text}});
  lines_.write(line);
}

void add_line(RunHistory& history, const std::string& line) {
  const nlohmann::json object = nlohmann::json::parse(line);
  const std::string event = object.at("event");
  const double time = object.value("time", history.last_time);
  const bool new_process = event == "run" || history.last_time == 0;
  if (!new_process) history.seconds += std::max(0.0, time - history.last_time);
  history.last_time = time;
  if (event == "run") {
    history.run = line;
  } else if (event == "resume") {
    const uint64_t step = object.at("step");
    drop_after(history.steps, step);
    drop_after(history.validations, step);
    drop_after(history.telemetry, step);
    drop_after(history.events, step);
  } else if (event == "step") {
    history.steps.push_back({.step = object.at("step"),
                             .tokens = object.at("tokens"),
                             .loss = number_in(object, "loss"),
                             .grad_norm = number_in(object, "grad_norm"),
                             .learning_rate = number_in(object, "lr"),
                             .tokens_per_second = number_in(object, "tokens_per_second"),
                             .mfu = number_in(object, "mfu"),
                             .applied = object.value("applied", true),
                             .retried = object.value("retried", false),
                             .non_finite = object.value("non_finite", uint64_t{0}),
                             .skipped_total = object.value("skipped_total", uint64_t{0}),
                             .seconds = history.seconds});
  } else if (event == "validation") {
    history.validations.push_back({object.at("step"), object.at("tokens"), losses_of(object), history.seconds});
  } else if (event == "telemetry") {
    history.telemetry.push_back(telemetry_of(object));
  }
  if (const std::optional<std::pair<std::string, std::string>> shown = shown_event(event, object)) {
    history.events.push_back({object.at("step"), shown->first, shown->second, history.seconds});
  }
}

RunHistory read_history(const std::filesystem::path& metrics_file) {
  std::ifstream file(metrics_file, std::ios::binary);
  if (!file) {
    throw Error(ExitCode::missing_input, fmt::format("cannot read {}", metrics_file.string()),
                "name a run directory that nibble train has written");
  }
  RunHistory history;
  std::string line;
  for (uint64_t number = 1; std::getline(file, line); ++number) {
    if (file.eof()) break;  // no newline: the run was killed, or is writing this line at this moment
    try {
      add_line(history, line);
    } catch (const nlohmann::json::exception& error) {
      throw Error(ExitCode::bad_data,
                  fmt::format("{}:{}: not a line of metrics: {}", metrics_file.string(), number, error.what()),
                  "repair or remove this line");
    }
  }
  return history;
}

}  // namespace nibble
