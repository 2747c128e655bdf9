#include "trainer/bench/bench_report.h"

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "dist/base/text.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

// Writes a number with three significant digits and without an exponent.
std::string number(double value) {
  if (value >= 99.95) return fmt::format("{:.0f}", value);
  return value >= 9.995 ? fmt::format("{:.1f}", value) : fmt::format("{:.2f}", value);
}

std::string headline(const std::vector<BenchResult>& cases) {
  std::string text;
  if (cases.empty()) return text;
  for (const BenchMeasurement& measurement : cases.front().measurements) {
    text += fmt::format("{:>32}", fmt::format("{} thread{}", measurement.threads, measurement.threads == 1 ? "" : "s"));
  }
  return text;
}

Json measurement_json(const BenchMeasurement& measurement, const BenchResult& result) {
  Json object = {{"threads", measurement.threads}, {"seconds", measurement.seconds}, {"rate", measurement.rate}};
  object["clock"] = measurement.threads == 1 ? "processor time" : "wall time";
  if (measurement.limit > 0) {
    object["limit"] = measurement.limit;
    object["share_of_limit"] = measurement.share();
  }
  if (!result.rival.empty()) object["speed_over_rival"] = measurement.ratio;
  return object;
}

Json case_json(const BenchResult& result) {
  Json object = {{"name", result.name}, {"unit", result.unit}};
  if (result.limit.kind != BenchLimit::Kind::none) {
    object["limited_by"] = name_of(result.limit.kind);
    if (result.limit.kind == BenchLimit::Kind::bandwidth) {
      object["bytes_read"] = result.limit.bytes_read;
      object["bytes_written"] = result.limit.bytes_written;
      object["working_set_bytes"] = result.limit.working_set;
    } else {
      object["flops"] = result.limit.flops;
    }
  }
  if (!result.rival.empty()) object["rival"] = result.rival;
  Json measurements = Json::array();
  for (const BenchMeasurement& measurement : result.measurements) {
    measurements.push_back(measurement_json(measurement, result));
  }
  object["measurements"] = measurements;
  return object;
}

Json training_json(const TrainingResult& result) {
  const BenchModel& model = result.model;
  Json rates = Json::array();
  for (const TrainingRate& rate : result.rates) {
    rates.push_back({{"recipe", rate.recipe},
                     {"tokens_per_second", rate.tokens_per_second},
                     {"mfu", rate.mfu},
                     {"speed_over_bf16", rate.ratio}});
  }
  return {{"name", model.name},
          {"parameters", result.parameters},
          {"hidden_size", model.hidden_size},
          {"layers", model.layers},
          {"heads", model.heads},
          {"intermediate_size", model.intermediate_size},
          {"sequence_length", model.sequence_length},
          {"vocabulary", model.vocabulary},
          {"micro_batch_sequences", model.micro_batch_sequences},
          {"tokens_per_step", model.tokens_per_step},
          {"threads", result.threads},
          {"clock", result.threads == 1 ? "processor time" : "wall time"},
          {"recipes", rates}};
}

}  // namespace

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

double parallel_efficiency(const BenchGroupResult& group) {
  for (const BenchResult& peak : group.peaks) {
    if (peak.name != "peak/fp32_fma" || peak.measurements.size() < 2) continue;
    const BenchMeasurement& all = peak.measurements.back();
    return all.rate / (all.threads * peak.measurements.front().rate);
  }
  return 1;
}

std::string machine_text(const BenchReport& report) {
  return fmt::format("processor  {}\nlevel      {}\nthreads    {} of {}\n", report.processor, report.instruction_set,
                     report.settings.threads.back(), report.available_threads);
}

std::string peaks_text(const BenchGroupResult& group) {
  std::string text = fmt::format("\n{:<40}{}\n", "peaks", headline(group.peaks));
  for (const BenchResult& peak : group.peaks) {
    text += fmt::format("{:<40}", peak.name);
    for (const BenchMeasurement& measurement : peak.measurements) {
      text += fmt::format("{:>32}", measurement.rate > 0 ? fmt::format("{} {}", number(measurement.rate), peak.unit)
                                                         : std::string("-"));
    }
    text += "\n";
  }
  const double efficiency = parallel_efficiency(group);
  constexpr double quiet = 0.9;
  if (efficiency < quiet) {
    text += fmt::format(
        "note: the threads reach {:.0f} % of what one alone promises: others use the cores, and figures of "
        "several threads are too low\n",
        100 * efficiency);
  }
  return text;
}

std::string group_text(const BenchGroupResult& group) {
  std::string text = fmt::format("\n{:<40}{}\n", group.title, headline(group.cases));
  for (const BenchResult& result : group.cases) {
    text += fmt::format("{:<40}", result.name);
    for (const BenchMeasurement& measurement : result.measurements) {
      const std::string share = measurement.limit > 0 ? fmt::format("{:.0f} %", 100 * measurement.share()) : "";
      const std::string ratio = result.rival.empty() ? "" : fmt::format("{:.2f}x", measurement.ratio);
      text +=
          fmt::format("{:>17}{:>7}{:>8}", fmt::format("{} {}", number(measurement.rate), result.unit), share, ratio);
    }
    text += "\n";
  }
  return text;
}

std::string training_text(const TrainingResult& result) {
  std::string text = fmt::format("{:<40}", fmt::format("{} ({:.1f}M parameters)", result.model.name,
                                                       static_cast<double>(result.parameters) / 1e6));
  for (const TrainingRate& rate : result.rates) {
    const bool base = &rate == &result.rates.front();
    text += fmt::format("  {} {} tok/s, MFU {:.0f} %{}", rate.recipe,
                        with_thousands(static_cast<uint64_t>(rate.tokens_per_second)), 100 * rate.mfu,
                        base ? std::string() : fmt::format(", {:.2f}x", rate.ratio));
  }
  return text + "\n";
}

Json to_json(const BenchReport& report) {
  Json peaks = Json::array();
  Json kernels = Json::array();
  if (!report.groups.empty()) {
    for (const BenchResult& peak : report.groups.front().peaks) peaks.push_back(case_json(peak));
  }
  for (const BenchGroupResult& group : report.groups) {
    for (const BenchResult& result : group.cases) kernels.push_back(case_json(result));
  }
  const double efficiency = report.groups.empty() ? 1 : parallel_efficiency(report.groups.front());
  Json training = Json::array();
  for (const TrainingResult& result : report.training) training.push_back(training_json(result));
  return {{"nibble", NIBBLE_VERSION},
          {"machine",
           {{"processor", report.processor},
            {"instruction_set", report.instruction_set},
            {"available_threads", report.available_threads},
            {"parallel_efficiency", efficiency}}},
          {"settings", {{"threads", report.settings.threads}, {"rounds", report.settings.rounds}}},
          {"peaks", peaks},
          {"kernels", kernels},
          {"training", training}};
}

}  // namespace nibble
