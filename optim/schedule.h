// The learning rate as a pure function of the step: a linear warm-up, then one of four shapes. Its bits are the same
// everywhere, because only additions, multiplications, divisions and square roots are used, no library transcendentals.
#pragma once

#include <cstdint>
#include <map>

#include "dist/base/enum_names.h"

namespace nibble {

enum class ScheduleKind : uint8_t {
  cosine,
  linear,
  wsd,       // warm-up, stable, then a linear decay over the last decay_share of the steps
  wsd_sqrt,  // as wsd, with the decay 1 - sqrt(progress) (Haegele et al. 2024, arXiv 2405.18392)
};
constexpr auto enum_names(ScheduleKind) {
  return std::to_array<EnumName<ScheduleKind>>({{ScheduleKind::cosine, "cosine"},
                                                {ScheduleKind::linear, "linear"},
                                                {ScheduleKind::wsd, "wsd"},
                                                {ScheduleKind::wsd_sqrt, "wsd_sqrt"}});
}

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::cosine;
  double peak = 0;
  double min_ratio = 0;       // learning rate at total_steps / peak
  uint64_t warmup_steps = 0;  // step s of the warm-up has peak * (s + 1) / warmup_steps
  uint64_t total_steps = 0;
  double decay_share = 0.2;  // of wsd and wsd_sqrt: share of total_steps, in [0, 1]
  // Other peaks, each from the update on that follows so many completed steps, in place of `peak`. The shape stays.
  std::map<uint64_t, double> later_peaks = {};
};

// Returns the peak of the update of `step`.
double peak_at(const ScheduleConfig& config, uint64_t step);

// Throws ExitCode::bad_config for a peak that is negative or not finite, ratios outside [0, 1], and more warm-up than
// steps.
void validate(const ScheduleConfig& config);

// Returns the learning rate of the update of `step`, counted from 0; from total_steps on it is peak_at() * min_ratio.
double learning_rate(const ScheduleConfig& config, uint64_t step);

}  // namespace nibble
