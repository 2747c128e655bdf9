#include "optim/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "dist/base/error.h"

namespace nibble {
namespace {

// Returns (1 + cos(pi t)) / 2 for t in [0, 1], with an error below 1e-15. The C library's cosine may differ in its last
// bit between instruction sets; this function does not.
double half_cosine(double t) {
  constexpr double pi = 3.14159265358979323846;
  const double x = pi * (0.5 - t);  // cos(pi t) = sin(x), |x| <= pi/2
  const double square = x * x;
  double factor = 1;  // Taylor series of sin(x)/x, innermost term first
  for (int term = 23; term >= 3; term -= 2) factor = 1 - factor * square / (term * (term - 1));
  return std::clamp((1 + x * factor) / 2, 0.0, 1.0);
}

double ratio_of(uint64_t part, uint64_t whole) {
  return static_cast<double>(part) / static_cast<double>(whole);
}

// Returns the factor of the decay, 1 at the peak and 0 at the end. `step` is between the end of the warm-up and
// total_steps.
double shape(const ScheduleConfig& config, uint64_t step) {
  if (config.kind == ScheduleKind::cosine || config.kind == ScheduleKind::linear) {
    const double progress = ratio_of(step - config.warmup_steps, config.total_steps - config.warmup_steps);
    return config.kind == ScheduleKind::cosine ? half_cosine(progress) : 1 - progress;
  }
  const double wanted = std::nearbyint(config.decay_share * static_cast<double>(config.total_steps));
  const uint64_t decay_steps = std::min(static_cast<uint64_t>(wanted), config.total_steps - config.warmup_steps);
  const uint64_t decay_start = config.total_steps - decay_steps;
  if (step < decay_start) return 1;
  const double progress = ratio_of(step - decay_start, decay_steps);
  return config.kind == ScheduleKind::wsd_sqrt ? 1 - std::sqrt(progress) : 1 - progress;
}

}  // namespace

void validate(const ScheduleConfig& config) {
  const auto require = [](bool condition, const std::string& what, const char* remedy) {
    if (!condition) throw Error(ExitCode::bad_config, what, remedy);
  };
  const auto require_rate = [&](double peak) {
    require(std::isfinite(peak) && peak >= 0, fmt::format("the learning rate is {}", peak),
            "set a finite learning rate of at least 0");
  };
  require_rate(config.peak);
  for (const auto& [step, peak] : config.later_peaks) require_rate(peak);
  require(config.min_ratio >= 0 && config.min_ratio <= 1,
          fmt::format("the schedule's min_ratio is {}", config.min_ratio), "set it between 0 and 1");
  require(config.decay_share >= 0 && config.decay_share <= 1,
          fmt::format("the schedule's decay_share is {}", config.decay_share), "set it between 0 and 1");
  require(config.warmup_steps <= config.total_steps,
          fmt::format("the schedule warms up for {} steps of {}", config.warmup_steps, config.total_steps),
          "train for more steps or warm up for fewer");
}

double peak_at(const ScheduleConfig& config, uint64_t step) {
  const auto later = config.later_peaks.upper_bound(step);
  return later == config.later_peaks.begin() ? config.peak : std::prev(later)->second;
}

double learning_rate(const ScheduleConfig& config, uint64_t step) {
  const double peak = peak_at(config, step);
  if (step >= config.total_steps) return peak * config.min_ratio;
  if (step < config.warmup_steps) return peak * ratio_of(step + 1, config.warmup_steps);
  return peak * (config.min_ratio + (1 - config.min_ratio) * shape(config, step));
}

}  // namespace nibble
