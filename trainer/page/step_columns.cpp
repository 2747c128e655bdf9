#include "trainer/page/step_columns.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

namespace nibble {

namespace {

constexpr size_t least_recent = 128;
constexpr size_t least_jump = 64;

// Mean and extremes of the values that are finite.
class Summary {
 public:
  void add(double value) {
    if (!std::isfinite(value)) return;
    sum_ += value;
    low_ = count_ == 0 ? value : std::min(low_, value);
    high_ = count_ == 0 ? value : std::max(high_, value);
    ++count_;
  }
  size_t count() const { return count_; }
  double mean() const { return count_ == 0 ? std::nan("") : sum_ / static_cast<double>(count_); }
  double low() const { return count_ == 0 ? std::nan("") : low_; }
  double high() const { return count_ == 0 ? std::nan("") : high_; }

 private:
  double sum_ = 0, low_ = 0, high_ = 0;
  size_t count_ = 0;
};

}  // namespace

Thinning thinning_of(size_t steps, size_t most_rows) {
  Thinning thinning;
  while (steps / thinning.stride > most_rows) thinning.stride *= 2;
  const size_t jump = std::max(least_jump, thinning.stride);
  thinning.recent = steps > least_recent ? (steps - least_recent) / jump * jump : 0;
  return thinning;
}

nlohmann::json short_number(double value, int digits) {
  if (!std::isfinite(value)) return nullptr;
  const std::string text = fmt::format("{:.{}g}", value, digits);
  double result = 0;
  std::from_chars(text.data(), text.data() + text.size(), result);
  return result;
}

nlohmann::json step_columns(const std::vector<StepMetrics>& steps, const Thinning& thinning, size_t begin, size_t end) {
  nlohmann::json columns;
  for (const char* key : {"step", "tokens", "seconds", "count", "loss", "loss_low", "loss_high", "grad_norm",
                          "grad_norm_high", "lr", "tokens_per_second", "mfu", "skipped"}) {
    columns[key] = nlohmann::json::array();
  }
  for_each_row(thinning, begin, end, [&](size_t first, size_t behind) {
    Summary loss, grad_norm, learning_rate, tokens_per_second, mfu;
    uint64_t skipped = 0;
    for (size_t i = first; i < behind; ++i) {
      loss.add(steps[i].loss);
      grad_norm.add(steps[i].grad_norm);
      learning_rate.add(steps[i].learning_rate);
      tokens_per_second.add(steps[i].tokens_per_second);
      mfu.add(steps[i].mfu);
      if (!steps[i].applied) ++skipped;
    }
    const StepMetrics& last = steps[behind - 1];
    columns["step"].push_back(last.step);
    columns["tokens"].push_back(last.tokens);
    columns["seconds"].push_back(short_number(last.seconds));
    columns["count"].push_back(loss.count());
    columns["loss"].push_back(short_number(loss.mean()));
    columns["loss_low"].push_back(short_number(loss.low()));
    columns["loss_high"].push_back(short_number(loss.high()));
    columns["grad_norm"].push_back(short_number(grad_norm.mean()));
    columns["grad_norm_high"].push_back(short_number(grad_norm.high()));
    columns["lr"].push_back(short_number(learning_rate.mean()));
    columns["tokens_per_second"].push_back(short_number(tokens_per_second.mean()));
    columns["mfu"].push_back(short_number(mfu.mean()));
    columns["skipped"].push_back(skipped);
  });
  return columns;
}

}  // namespace nibble
