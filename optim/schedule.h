// The learning rate as a pure function of the step: linear warm-up, then one of four shapes. The same bits everywhere:
// only additions, multiplications, divisions and square roots are used, no library transcendentals.
#pragma once

#include <cstdint>

namespace nibble {

enum class ScheduleKind : uint8_t {
  cosine,
  linear,
  wsd,       // warm-up, stable, then a linear decay over the last decay_share of the steps
  wsd_sqrt,  // the same with the decay 1 - sqrt(progress) (Haegele et al. 2024, arXiv 2405.18392)
};

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::cosine;
  double peak = 0;
  double min_ratio = 0;       // learning rate at total_steps / peak
  uint64_t warmup_steps = 0;  // step s of the warm-up has peak * (s + 1) / warmup_steps
  uint64_t total_steps = 0;
  double decay_share = 0.2;  // wsd: share of total_steps, in [0, 1]
};

// Throws ExitCode::bad_config: a peak that is negative or not finite, ratios outside [0, 1], more warm-up than steps.
void validate(const ScheduleConfig& config);

// Of the update of `step`, counted from 0. From total_steps on: peak * min_ratio.
double learning_rate(const ScheduleConfig& config, uint64_t step);

}  // namespace nibble
