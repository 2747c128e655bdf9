#include "trainer/report/seed_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "dist/base/error.h"

namespace nibble {
namespace {

constexpr double confidence = 0.95;

// Returns the probability between -t and t. The sums are those of Abramowitz and Stegun, 26.7.3 and 26.7.4, with
// tan(theta) = t / sqrt(degrees).
double probability_within(double t, uint64_t degrees) {
  const double theta = std::atan(t / std::sqrt(static_cast<double>(degrees)));
  const double cosine = std::cos(theta);
  const bool odd = degrees % 2 == 1;
  double term = odd ? cosine : 1;
  double sum = 0;
  for (uint64_t k = odd ? 2 : 1; k < degrees; k += 2) {
    sum += term;
    term *= cosine * cosine * static_cast<double>(k) / static_cast<double>(k + 1);
  }
  return odd ? (theta + std::sin(theta) * sum) * 2 / std::numbers::pi : std::sin(theta) * sum;
}

std::map<uint64_t, const ComparedRun*> by_seed(const std::vector<ComparedRun>& runs) {
  std::map<uint64_t, const ComparedRun*> result;
  for (const ComparedRun& run : runs) {
    const auto [place, added] = result.emplace(run.config.run.seed, &run);
    if (added) continue;
    throw Error(ExitCode::usage,
                fmt::format("{} and {} have both seed {}", place->second->directory.string(), run.directory.string(),
                            run.config.run.seed),
                "name one run of each seed on each side");
  }
  return result;
}

// Returns the gaps in validation loss of all pairs after the last number of tokens that every pair has; none if there
// is no such number.
std::vector<Gap> common_validations(const std::vector<ComparedPair>& pairs) {
  std::map<uint64_t, std::vector<Gap>> gaps;  // of the first set, by tokens
  for (const ComparedPair& pair : pairs) {
    uint64_t before = 0;
    for (const ValidationGap& each : pair.comparison.validations) {
      if (each.gap.tokens == before) continue;
      gaps[each.gap.tokens].push_back(each.gap);
      before = each.gap.tokens;
    }
  }
  const auto last =
      std::find_if(gaps.rbegin(), gaps.rend(), [&](const auto& entry) { return entry.second.size() == pairs.size(); });
  return last == gaps.rend() ? std::vector<Gap>() : last->second;
}

}  // namespace

double student_t(double probability, uint64_t degrees) {
  NIBBLE_CHECK(degrees >= 1 && probability > 0 && probability < 1, "a quantile of Student's t");
  double low = 0;
  double high = 1;
  while (probability_within(high, degrees) < probability) high *= 2;
  constexpr int halvings = 100;
  for (int i = 0; i < halvings; ++i) {
    const double middle = (low + high) / 2;
    (probability_within(middle, degrees) < probability ? low : high) = middle;
  }
  return high;
}

SeedGap seed_gap(const std::vector<Gap>& gaps) {
  const auto count = static_cast<double>(gaps.size());
  SeedGap result;
  double base = 0;
  for (const Gap& gap : gaps) {
    result.tokens = gap.tokens;
    result.gap += gap.absolute / count;
    base += gap.base_loss / count;
  }
  result.relative = result.gap / base;
  if (gaps.size() < 2) return result;
  double squares = 0;
  for (const Gap& gap : gaps) squares += (gap.absolute - result.gap) * (gap.absolute - result.gap);
  const double margin = student_t(confidence, gaps.size() - 1) * std::sqrt(squares / (count - 1) / count);
  result.low = result.gap - margin;
  result.high = result.gap + margin;
  return result;
}

SeedComparison compare_seeds(const std::vector<ComparedRun>& bases, const std::vector<ComparedRun>& runs) {
  const auto of_bases = by_seed(bases);
  const auto of_runs = by_seed(runs);
  SeedComparison result;
  for (const auto& [seed, base] : of_bases) {
    const auto match = of_runs.find(seed);
    if (match == of_runs.end()) {
      result.unpaired.push_back(base->directory.string());
      continue;
    }
    result.pairs.push_back({result.runs.size(), result.runs.size() + 1, compare_runs(*base, *match->second)});
    result.runs.push_back(*base);
    result.runs.push_back(*match->second);
  }
  for (const auto& [seed, run] : of_runs) {
    if (!of_bases.contains(seed)) result.unpaired.push_back(run->directory.string());
  }
  if (result.pairs.empty()) {
    throw Error(ExitCode::bad_data, "no base and no run have the same run.seed",
                "name runs of equal seeds on both sides");
  }
  const std::vector<Gap> gaps = common_validations(result.pairs);
  if (!gaps.empty()) result.validation = seed_gap(gaps);
  return result;
}

}  // namespace nibble
