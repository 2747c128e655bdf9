#include "trainer/page/gap_columns.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "trainer/page/step_columns.h"

namespace nibble {

namespace {

struct PairedLosses {
  const StepMetrics* base;
  const StepMetrics* run;
  double gap() const { return run->loss - base->loss; }
};

std::vector<PairedLosses> pair_up(const ComparedRun& base, const ComparedRun& run) {
  std::vector<PairedLosses> pairs;
  auto of_base = base.history.steps.begin();
  for (const StepMetrics& step : run.history.steps) {
    while (of_base != base.history.steps.end() && of_base->tokens < step.tokens) ++of_base;
    if (of_base == base.history.steps.end()) break;
    if (of_base->tokens == step.tokens) pairs.push_back({&*of_base, &step});
  }
  return pairs;
}

// Returns the lag-1 correlation of the gaps, each less the mean of its window.
double neighbour_correlation(const std::vector<PairedLosses>& pairs) {
  constexpr size_t window = 64;
  double products = 0;
  double squares = 0;
  for (size_t begin = 0; begin + window <= pairs.size(); begin += window) {
    std::vector<double> gaps;
    for (size_t i = begin; i < begin + window; ++i) {
      if (std::isfinite(pairs[i].gap())) gaps.push_back(pairs[i].gap());
    }
    double mean = 0;
    for (const double gap : gaps) mean += gap / static_cast<double>(gaps.size());
    for (size_t i = 0; i < gaps.size(); ++i) {
      squares += (gaps[i] - mean) * (gaps[i] - mean);
      if (i > 0) products += (gaps[i] - mean) * (gaps[i - 1] - mean);
    }
  }
  return squares > 0 ? std::clamp(products / squares, 0.0, 0.98) : 0;
}

// The gaps of the validations behind the fork that read the same text.
nlohmann::json validation_gaps(const ComparedRun& base, const ComparedRun& run, uint64_t fork_tokens) {
  nlohmann::json rows = nlohmann::json::array();
  auto of_base = base.history.validations.begin();
  for (const RunHistory::Validation& validation : run.history.validations) {
    while (of_base != base.history.validations.end() && of_base->tokens < validation.tokens) ++of_base;
    if (of_base == base.history.validations.end()) break;
    if (of_base->tokens != validation.tokens || validation.tokens <= fork_tokens) continue;
    for (const ValidationLoss& loss : validation.losses) {
      for (const ValidationLoss& other : of_base->losses) {
        if (other.name != loss.name || other.data_fingerprint != loss.data_fingerprint) continue;
        rows.push_back({{"set", loss.name},
                        {"step", validation.step},
                        {"tokens", validation.tokens},
                        {"seconds", short_number(validation.seconds)},
                        {"gap", short_number(loss.loss - other.loss)},
                        {"base", short_number(other.loss)}});
      }
    }
  }
  return rows;
}

// Returns the tokens up to which the two runs have the same losses.
uint64_t fork_of(const std::vector<PairedLosses>& pairs) {
  uint64_t tokens = 0;
  for (const PairedLosses& pair : pairs) {
    const bool both_nan = std::isnan(pair.base->loss) && std::isnan(pair.run->loss);
    if (pair.base->loss != pair.run->loss && !both_nan) break;
    tokens = pair.run->tokens;
  }
  return tokens;
}

}  // namespace

nlohmann::json gap_columns(const ComparedRun& base, const ComparedRun& run, size_t most_rows) {
  const std::vector<PairedLosses> pairs = pair_up(base, run);
  nlohmann::json columns;
  for (const char* key : {"step", "tokens", "seconds", "count", "gap", "variance", "base"}) {
    columns[key] = nlohmann::json::array();
  }
  for_each_row(thinning_of(pairs.size(), most_rows), 0, pairs.size(), [&](size_t first, size_t behind) {
    double count = 0;
    double gap = 0;
    double base_loss = 0;
    double squares = 0;
    for (size_t i = first; i < behind; ++i) {
      const double value = pairs[i].gap();
      if (!std::isfinite(value)) continue;
      count += 1;
      base_loss += (pairs[i].base->loss - base_loss) / count;
      const double before = gap;
      gap += (value - gap) / count;
      squares += (value - before) * (value - gap);
    }
    const StepMetrics& last = *pairs[behind - 1].run;
    columns["step"].push_back(last.step);
    columns["tokens"].push_back(last.tokens);
    columns["seconds"].push_back(short_number(last.seconds));
    columns["count"].push_back(count);
    columns["gap"].push_back(short_number(count > 0 ? gap : std::nan("")));
    columns["variance"].push_back(short_number(count > 0 ? squares / count : std::nan("")));
    columns["base"].push_back(short_number(count > 0 ? base_loss : std::nan("")));
  });
  return {{"columns", columns},
          {"correlation", short_number(neighbour_correlation(pairs))},
          {"validations", validation_gaps(base, run, fork_of(pairs))}};
}

}  // namespace nibble
