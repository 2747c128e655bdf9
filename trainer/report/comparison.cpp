#include "trainer/report/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "dist/base/error.h"
#include "dist/base/text.h"

namespace nibble {

namespace {

constexpr double token_fractions[] = {0.10, 0.25, 0.50, 0.75, 1.00};
constexpr double window_share = 0.05;  // length of a window, as a share of the pairs

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
  return gap;
}

bool same_loss(double a, double b) {
  return a == b || (std::isnan(a) && std::isnan(b));
}

// Returns how many pairs, from the first on, have equal losses.
size_t equal_pairs(const std::vector<PairedStep>& pairs) {
  const auto fork =
      std::find_if(pairs.begin(), pairs.end(), [](const PairedStep& pair) { return !same_loss(pair.base, pair.run); });
  return static_cast<size_t>(fork - pairs.begin());
}

const ValidationLoss* find_set(const RunHistory::Validation& validation, const ValidationLoss& wanted) {
  const auto found = std::find_if(validation.losses.begin(), validation.losses.end(), [&](const ValidationLoss& loss) {
    return loss.name == wanted.name && loss.data_fingerprint == wanted.data_fingerprint;
  });
  return found == validation.losses.end() ? nullptr : &*found;
}

// The weights after the last equal loss may be equal or not: an equal validation there belongs to what both share.
std::vector<ValidationGap> validation_gaps(const ComparedRun& base, const ComparedRun& run, uint64_t fork_tokens) {
  std::map<uint64_t, const RunHistory::Validation*> of_base;
  for (const RunHistory::Validation& validation : base.history.validations) of_base[validation.tokens] = &validation;
  std::vector<ValidationGap> gaps;
  for (const RunHistory::Validation& of_run : run.history.validations) {
    const auto match = of_base.find(of_run.tokens);
    if (match == of_base.end() || of_run.tokens < fork_tokens) continue;
    for (const ValidationLoss& loss : of_run.losses) {
      const ValidationLoss* other = find_set(*match->second, loss);
      if (other == nullptr) continue;
      if (of_run.tokens == fork_tokens && same_loss(other->loss, loss.loss)) continue;
      gaps.push_back({.set = loss.name,
                      .gap = {.tokens = of_run.tokens,
                              .base_loss = other->loss,
                              .run_loss = loss.loss,
                              .absolute = loss.loss - other->loss,
                              .relative = (loss.loss - other->loss) / other->loss,
                              .steps = 1}});
    }
  }
  return gaps;
}

// Says why two runs that both validate have no validation gap.
std::string why_no_validation(const ComparedRun& base, const ComparedRun& run, uint64_t fork_tokens) {
  const auto behind = [&](const RunHistory::Validation& each) { return each.tokens > fork_tokens; };
  const auto& of_base = base.history.validations;
  const auto& of_run = run.history.validations;
  if (of_base.empty() || of_run.empty()) return "";
  if (fork_tokens > 0 &&
      (std::none_of(of_base.begin(), of_base.end(), behind) || std::none_of(of_run.begin(), of_run.end(), behind))) {
    return fmt::format("no common validation lies behind the fork at {} tokens", with_thousands(fork_tokens));
  }
  const auto together = [&](const RunHistory::Validation& each) {
    return std::any_of(of_base.begin(), of_base.end(), [&](const auto& other) { return other.tokens == each.tokens; });
  };
  return std::any_of(of_run.begin(), of_run.end(), together)
             ? "the validations are not compared: they read different text (data.validation, eval.sequences)"
             : "no two validations come after the same number of tokens";
}

struct LossCurve {
  std::vector<double> tokens, loss;
};

LossCurve training_curve(const ComparedRun& run, uint64_t fork_tokens) {
  LossCurve curve;
  for (const StepMetrics& step : run.history.steps) {
    if (step.tokens <= fork_tokens) continue;
    curve.tokens.push_back(static_cast<double>(step.tokens));
    curve.loss.push_back(step.loss);
  }
  curve.loss = smoothed(curve.loss, smoothing_share * static_cast<double>(curve.loss.size()));
  return curve;
}

// Returns the validations of the set and text that the gap is about.
LossCurve validation_curve(const ComparedRun& run, const ValidationLoss& wanted, uint64_t fork_tokens) {
  LossCurve curve;
  for (const RunHistory::Validation& validation : run.history.validations) {
    const ValidationLoss* loss = find_set(validation, wanted);
    if (loss == nullptr || validation.tokens <= fork_tokens) continue;
    curve.tokens.push_back(static_cast<double>(validation.tokens));
    curve.loss.push_back(loss->loss);
  }
  return curve;
}

// Returns the tokens at which the curve, joined by straight lines, first is not above the loss.
std::optional<double> first_at(const LossCurve& curve, double loss) {
  for (size_t i = 0; i < curve.loss.size(); ++i) {
    if (!(curve.loss[i] <= loss)) continue;
    if (i == 0 || !(curve.loss[i - 1] > loss)) return curve.tokens[i];
    const double share = (curve.loss[i - 1] - loss) / (curve.loss[i - 1] - curve.loss[i]);
    return curve.tokens[i - 1] + share * (curve.tokens[i] - curve.tokens[i - 1]);
  }
  return std::nullopt;
}

double median_throughput(const ComparedRun& run, uint64_t fork_tokens) {
  std::vector<double> values;
  for (const StepMetrics& step : run.history.steps) {
    if (step.tokens > fork_tokens) values.push_back(step.tokens_per_second);
  }
  if (values.empty()) return std::nan("");
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string data_fingerprint(const ComparedRun& run) {
  if (run.history.run.empty()) return {};
  return nlohmann::json::parse(run.history.run).value("data_fingerprint", "");
}

std::optional<TimeToEqualLoss> time_to_equal_loss(const ComparedRun& base, const ComparedRun& run,
                                                  const Comparison& comparison) {
  const uint64_t fork = comparison.fork_tokens;
  TimeToEqualLoss result;
  LossCurve of_base = training_curve(base, fork);
  LossCurve of_run = training_curve(run, fork);
  for (const RunHistory::Validation& validation : run.history.validations) {
    if (!comparison.validation() || validation.tokens != comparison.validation()->tokens) continue;
    const LossCurve validations = validation_curve(base, validation.losses.front(), fork);
    if (validations.loss.empty()) continue;
    result.of_validation = true;
    of_base = validations;
    of_run = validation_curve(run, validation.losses.front(), fork);
  }
  if (of_base.loss.empty()) return std::nullopt;
  result.loss = of_base.loss.back();
  result.tokens = first_at(of_run, result.loss);
  if (result.tokens) {
    const auto shared = static_cast<double>(fork);
    result.time_ratio = (*result.tokens - shared) / (of_base.tokens.back() - shared) / comparison.throughput_ratio;
  }
  return result;
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

std::vector<ConfigDifference> differences_of(const ComparedRun& base, const ComparedRun& run) {
  std::vector<ConfigDifference> differences = config_differences(base.config, run.config);
  std::erase_if(differences, [](const ConfigDifference& difference) { return difference.key == "run.dir"; });
  return differences;
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

std::optional<Gap> Comparison::validation() const {
  const std::vector<ValidationGap> last = last_validations();
  if (last.empty()) return std::nullopt;
  return last.front().gap;
}

std::vector<ValidationGap> Comparison::last_validations() const {
  std::vector<ValidationGap> last;
  for (const ValidationGap& each : validations) {
    if (each.gap.tokens == validations.back().gap.tokens) last.push_back(each);
  }
  return last;
}

Gap Comparison::final_gap() const {
  if (const std::optional<Gap> last = validation()) return *last;
  return training_end ? *training_end : fractions.back();
}

std::vector<PairedStep> paired_steps(const ComparedRun& base, const ComparedRun& run) {
  std::map<uint64_t, double> of_base;
  for (const StepMetrics& step : base.history.steps) of_base[step.tokens] = step.loss;
  std::vector<PairedStep> pairs;
  for (const StepMetrics& step : run.history.steps) {
    const auto match = of_base.find(step.tokens);
    if (match != of_base.end()) pairs.push_back({step.tokens, match->second, step.loss});
  }
  return pairs;
}

Comparison compare_runs(const ComparedRun& base, const ComparedRun& run) {
  const std::vector<PairedStep> pairs = paired_steps(base, run);
  if (pairs.empty()) {
    throw Error(ExitCode::bad_data, fmt::format("{} and {} have no count of tokens in common", base.name, run.name),
                "let both runs train until their steps end at the same number of tokens");
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
  const size_t equal = equal_pairs(pairs);
  if (equal > 0) comparison.fork_tokens = pairs[equal - 1].tokens;
  if (equal < pairs.size()) {
    comparison.training_end = gap_over(pairs, pairs.size() - std::min(window, pairs.size() - equal), pairs.size());
  }
  comparison.validations = validation_gaps(base, run, comparison.fork_tokens);
  if (comparison.validations.empty()) comparison.validation_note = why_no_validation(base, run, comparison.fork_tokens);
  const uint64_t measured_from = equal < pairs.size() ? comparison.fork_tokens : 0;
  comparison.throughput_ratio = median_throughput(run, measured_from) / median_throughput(base, measured_from);
  comparison.equal_loss = time_to_equal_loss(base, run, comparison);
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
