// OsciReset of TetraJet-v2 (arXiv:2510.27527): a weight that lies between two numbers of a coarse format makes its
// quantised value jump back and forth while it hardly moves itself. In windows of a schedule, for every element of this
// rank's shard, two paths are measured: sum |Q(w_t) - Q(w_t-1)| and sum |w_t - w_t-1|. At the end of a window an
// element whose first path is `threshold` times the second or more is set to Q(w), the middle of what rounds to the
// same number. Moments and learning rate stay as they are.
//
// The official implementation, with two differences: it resets one step after the window's last, and it forgets an open
// window when a run is restarted. Element by element, so nothing depends on ranks or threads.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "dist/device/arena.h"
#include "optim/adamw/adamw.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// Windows open after the update of every step (counted from 0) that is a multiple of `every` and at least `first_step`;
// the `window` steps that follow are measured, and the last of them resets.
struct OscillationConfig {
  uint64_t first_step = 0;
  uint64_t every = 200;
  uint64_t window = 50;  // below `every`
  float threshold = 8;
};

class Oscillation {
 public:
  // This rank's elements, all of them; called from one thread. Spans are memory of the CPU: where weights are on a GPU,
  // these copy them.
  struct Shard {
    std::function<void(std::span<float>)> read_weights;  // what the optimizer updates
    // Q(w); NaN for elements that are not quantised, which are never reset.
    std::function<void(std::span<float>)> read_quantized;
    std::function<void(std::span<const float>)> write_weights;
  };

  // Memory comes from the arena, of the CPU: five FP32 numbers an element.
  Oscillation(Arena& arena, const OscillationConfig& config, uint64_t elements);

  // Around the update of every step, also one that is not applied.
  void before_update(uint64_t step, const Shard& shard);
  // The number of elements that were reset.
  uint64_t after_update(uint64_t step, const Shard& shard);
  // Whether after_update(step) may reset elements.
  bool resets_at(uint64_t step) const { return position(step) == config_.window; }

  // State that a checkpoint after `steps` steps must keep: none outside a window.
  std::vector<NamedState> state(uint64_t steps) const;

 private:
  static constexpr uint64_t outside = UINT64_MAX;
  // 0: a window opens after this step; 1 to window: that many of its steps are measured with this one.
  uint64_t position(uint64_t step) const;
  uint64_t reset(const Shard& shard);

  OscillationConfig config_;
  // All f32 [elements].
  Tensor weight_path_, quantized_path_;
  Tensor last_quantized_;
  Tensor weights_;  // before the update
  Tensor scratch_;
};

}  // namespace nibble
