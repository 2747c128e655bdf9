#include "trainer/report/comparison_text.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "dist/base/text.h"

namespace nibble {
namespace {

nlohmann::json gap_json(const Gap& gap) {
  return {{"tokens", gap.tokens},     {"base_loss", gap.base_loss}, {"run_loss", gap.run_loss},
          {"absolute", gap.absolute}, {"relative", gap.relative},   {"steps", gap.steps}};
}

nlohmann::json or_null(const std::optional<double>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json();
}

nlohmann::json equal_loss_json(const std::optional<TimeToEqualLoss>& equal) {
  if (!equal) return nullptr;
  return {{"curve", equal->of_validation ? "validation" : "training"},
          {"loss", equal->loss},
          {"tokens", or_null(equal->tokens)},
          {"time_ratio", or_null(equal->time_ratio)}};
}

nlohmann::json differences_json(const ComparedRun& base, const ComparedRun& run) {
  nlohmann::json differences = nlohmann::json::array();
  for (const ConfigDifference& each : differences_of(base, run)) {
    differences.push_back({{"key", each.key}, {"base", each.before}, {"run", each.after}});
  }
  return differences;
}

std::string differences_text(const ComparedRun& base, const ComparedRun& run) {
  const std::vector<ConfigDifference> differences = differences_of(base, run);
  if (differences.empty()) return "the configurations are equal but for run.dir\n";
  std::string text = "differences of configuration, baseline -> run:\n";
  for (const ConfigDifference& each : differences) {
    text += fmt::format("  {}: {} -> {}\n", each.key, each.before, each.after);
  }
  return text;
}

}  // namespace

std::string one_seed_text() {
  return "One run of each kind gives no error of the gap, because the spread between seeds is not in it; runs of "
         "several "
         "seeds give one: nibble compare --base A1 A2 A3 --run B1 B2 B3";
}

std::string fork_text(const Comparison& comparison) {
  std::string text;
  if (comparison.fork_tokens > 0) {
    text = fmt::format("The losses of both are equal up to {} tokens: there they fork.",
                       with_thousands(comparison.fork_tokens));
  }
  if (comparison.validation_note.empty()) return text;
  return text + (text.empty() ? "" : " ") +
         fmt::format("There is no gap in validation loss: {}.", comparison.validation_note);
}

std::string equal_loss_text(const ComparedRun& base, const ComparedRun& run, const Comparison& comparison) {
  if (!comparison.equal_loss) return "";
  const TimeToEqualLoss& equal = *comparison.equal_loss;
  const std::string what = fmt::format("the {} loss {:.4f} at which {} ends",
                                       equal.of_validation ? "validation" : "smoothed training", equal.loss, base.name);
  if (!equal.tokens) return fmt::format("{} does not reach {}.", run.name, what);
  return fmt::format("{} reaches {} after {} tokens, in {:.2f} of its time.", run.name, what,
                     with_thousands(static_cast<uint64_t>(*equal.tokens)), equal.time_ratio.value_or(0));
}

std::string seed_gap_text(const SeedGap& gap, size_t seeds) {
  std::string text = fmt::format("{:+.4f} nats ({:+.2f} %)", gap.gap, 100 * gap.relative);
  if (!gap.low) return text + ", one seed: no interval";
  return text + fmt::format(", 95 % interval {:+.4f} to {:+.4f} (Student's t, {} seeds)", *gap.low, *gap.high, seeds);
}

std::string comparison_table(const ComparedRun& base, const ComparedRun& run, const Comparison& comparison) {
  std::string table = fmt::format("{} against {} ({} common steps, {:.2f}x tokens/s)\n", run.name, base.name,
                                  comparison.common_steps, comparison.throughput_ratio);
  table += fmt::format("{:>12}  {:>10}  {:>10}  {:>9}  {:>8}\n", "tokens", "base loss", "run loss", "gap", "gap %");
  const auto row = [&table](const std::string& what, const Gap& gap) {
    table += fmt::format("{:>12}  {:>10.4f}  {:>10.4f}  {:>+9.4f}  {:>+8.2f}\n", what, gap.base_loss, gap.run_loss,
                         gap.absolute, 100 * gap.relative);
  };
  for (const Gap& gap : comparison.fractions) row(with_thousands(gap.tokens), gap);
  for (const ValidationGap& each : comparison.last_validations()) {
    row(each.set.empty() ? "validation" : "val. " + each.set, each.gap);
  }
  for (const std::string& sentence : {fork_text(comparison), equal_loss_text(base, run, comparison)}) {
    if (!sentence.empty()) table += sentence + "\n";
  }
  return table + differences_text(base, run);
}

nlohmann::json comparison_json(const ComparedRun& base, const ComparedRun& run, const Comparison& comparison) {
  nlohmann::json fractions = nlohmann::json::array();
  for (const Gap& gap : comparison.fractions) fractions.push_back(gap_json(gap));
  nlohmann::json object = {{"base", base.directory.string()},
                           {"run", run.directory.string()},
                           {"common_steps", comparison.common_steps},
                           {"throughput_ratio", comparison.throughput_ratio},
                           {"fractions", fractions},
                           {"fork_tokens", comparison.fork_tokens},
                           {"time_to_equal_loss", equal_loss_json(comparison.equal_loss)},
                           {"differences", differences_json(base, run)}};
  if (const auto validation = comparison.validation()) object["validation"] = gap_json(*validation);
  for (const ValidationGap& each : comparison.last_validations()) {
    if (!each.set.empty()) object["validation_sets"][each.set] = gap_json(each.gap);
  }
  if (!comparison.validation_note.empty()) object["validation_note"] = comparison.validation_note;
  return object;
}

std::string seed_table(const SeedComparison& comparison) {
  std::string table = fmt::format("{:>10}  {:>10}  {:>10}  {:>9}  {:>8}  {}\n", "seed", "base loss", "run loss", "gap",
                                  "gap %", "base, run");
  for (const ComparedPair& pair : comparison.pairs) {
    const ComparedRun& base = comparison.runs[pair.base];
    const ComparedRun& run = comparison.runs[pair.run];
    const Gap gap = pair.comparison.final_gap();
    table += fmt::format("{:>10}  {:>10.4f}  {:>10.4f}  {:>+9.4f}  {:>+8.2f}  {}, {}\n", base.config.run.seed,
                         gap.base_loss, gap.run_loss, gap.absolute, 100 * gap.relative, base.name, run.name);
  }
  for (const std::string& directory : comparison.unpaired) {
    table += fmt::format("{} has no partner of its seed and is left out\n", directory);
  }
  if (!comparison.validation) return table + "the pairs have no validation after the same number of tokens\n";
  table += fmt::format("gap in validation loss after {} tokens: {}\n", with_thousands(comparison.validation->tokens),
                       seed_gap_text(*comparison.validation, comparison.pairs.size()));
  return table + differences_text(comparison.runs[comparison.pairs.front().base],
                                  comparison.runs[comparison.pairs.front().run]);
}

nlohmann::json seed_json(const SeedComparison& comparison) {
  nlohmann::json pairs = nlohmann::json::array();
  for (const ComparedPair& pair : comparison.pairs) {
    nlohmann::json object = comparison_json(comparison.runs[pair.base], comparison.runs[pair.run], pair.comparison);
    object["seed"] = comparison.runs[pair.base].config.run.seed;
    pairs.push_back(std::move(object));
  }
  nlohmann::json validation;
  if (const auto& gap = comparison.validation) {
    validation = {{"tokens", gap->tokens},
                  {"gap", gap->gap},
                  {"relative", gap->relative},
                  {"low", or_null(gap->low)},
                  {"high", or_null(gap->high)}};
  }
  return {{"seeds", comparison.pairs.size()},
          {"validation", validation},
          {"pairs", pairs},
          {"unpaired", comparison.unpaired}};
}

}  // namespace nibble
