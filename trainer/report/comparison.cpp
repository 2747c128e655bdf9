#include "trainer/report/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "dist/base/error.h"

namespace nibble {

namespace {

constexpr double token_fractions[] = {0.10, 0.25, 0.50, 0.75, 1.00};
constexpr double window_share = 0.05;  // length of a window, as a share of the common steps

struct PairedStep {
  uint64_t tokens;
  double base;
  double run;
};

std::vector<PairedStep> paired_steps(const ComparedRun& base, const ComparedRun& run) {
  std::map<uint64_t, const StepMetrics*> of_base;
  for (const StepMetrics& step : base.history.steps) of_base[step.step] = &step;
  std::vector<PairedStep> pairs;
  for (const StepMetrics& step : run.history.steps) {
    const auto match = of_base.find(step.step);
    if (match != of_base.end()) pairs.push_back({step.tokens, match->second->loss, step.loss});
  }
  return pairs;
}

// Computes the gap over the pairs [begin, end).
Gap gap_over(const std::vector<PairedStep>& pairs, size_t begin, size_t end) {
  Gap gap;
  gap.tokens = pairs[end - 1].tokens;
  gap.steps = end - begin;
  const auto count = static_cast<double>(gap.steps);
  for (size_t i = begin; i < end; ++i) {
    gap.base_loss += pairs[i].base / count;
    gap.run_loss += pairs[i].run / count;
  }
  gap.absolute = gap.run_loss - gap.base_loss;
  gap.relative = gap.absolute / gap.base_loss;
  double squares = 0;
  for (size_t i = begin; i < end; ++i) squares += std::pow(pairs[i].run - pairs[i].base - gap.absolute, 2);
  if (gap.steps > 1) gap.standard_error = std::sqrt(squares / (count - 1) / count);
  return gap;
}

std::optional<Gap> validation_gap(const ComparedRun& base, const ComparedRun& run) {
  for (auto of_run = run.history.validations.rbegin(); of_run != run.history.validations.rend(); ++of_run) {
    for (const RunHistory::Validation& of_base : base.history.validations) {
      if (of_base.step != of_run->step) continue;
      return Gap{.tokens = of_run->tokens,
                 .base_loss = of_base.loss(),
                 .run_loss = of_run->loss(),
                 .absolute = of_run->loss() - of_base.loss(),
                 .relative = (of_run->loss() - of_base.loss()) / of_base.loss(),
                 .standard_error = 0,
                 .steps = 1};
    }
  }
  return std::nullopt;
}

double median_throughput(const ComparedRun& run) {
  std::vector<double> values;
  for (const StepMetrics& step : run.history.steps) values.push_back(step.tokens_per_second);
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string data_fingerprint(const ComparedRun& run) {
  if (run.history.run.empty()) return {};
  return nlohmann::json::parse(run.history.run).value("data_fingerprint", "");
}

}  // namespace

ComparedRun load_run(const std::filesystem::path& directory) {
  const auto normal = std::filesystem::absolute(directory).lexically_normal();
  const std::string name = normal.has_filename() ? normal.filename() : normal.parent_path().filename();
  if (!std::filesystem::exists(normal / "config.yaml")) {
    throw Error(ExitCode::missing_input,
                fmt::format("{} is not a run directory: it has no config.yaml", normal.string()),
                "name a directory that nibble train has written (run.dir)");
  }
  return {normal, name, parse_run_config(normal / "config.yaml"), read_history(normal / "metrics.jsonl")};
}

std::vector<std::string> comparison_obstacles(const ComparedRun& base, const ComparedRun& run) {
  std::vector<std::string> obstacles;
  for (const ConfigDifference& difference : config_differences(base.config, run.config)) {
    // The paths of the shards may differ; their contents are compared by the fingerprint.
    if (difference.compare_group.empty() || difference.compare_group == "data") continue;
    obstacles.push_back(fmt::format("{} differs: {} {}, {} {}", difference.key, base.name, difference.before, run.name,
                                    difference.after));
  }
  const bool begun = !base.history.run.empty() && !run.history.run.empty();
  if (begun && data_fingerprint(base) != data_fingerprint(run)) {
    obstacles.push_back(fmt::format("training data differs: {} {}, {} {}", base.name, data_fingerprint(base), run.name,
                                    data_fingerprint(run)));
  }
  return obstacles;
}

Comparison compare_runs(const ComparedRun& base, const ComparedRun& run) {
  const std::vector<PairedStep> pairs = paired_steps(base, run);
  if (pairs.empty()) {
    throw Error(ExitCode::bad_data, fmt::format("{} and {} have no step in common", base.name, run.name),
                "let both runs make at least one step");
  }
  Comparison comparison;
  comparison.common_steps = pairs.size();
  const auto steps_in = [&](double share) {
    return static_cast<size_t>(std::max(1LL, std::llround(share * static_cast<double>(pairs.size()))));
  };
  const size_t window = steps_in(window_share);
  for (const double fraction : token_fractions) {
    const size_t end = steps_in(fraction);
    comparison.fractions.push_back(gap_over(pairs, end - std::min(end, window), end));
  }
  comparison.validation = validation_gap(base, run);
  comparison.throughput_ratio = median_throughput(run) / median_throughput(base);
  return comparison;
}

std::vector<double> smoothed(const std::vector<double>& values, double span) {
  const double keep = 1 - 1 / std::max(1.0, span);
  std::vector<double> result;
  double mean = 0;
  double weight = 0;
  for (const double value : values) {
    if (std::isfinite(value)) {
      mean = keep * mean + (1 - keep) * value;
      weight = keep * weight + (1 - keep);
    }
    result.push_back(mean / weight);
  }
  return result;
}

}  // namespace nibble
