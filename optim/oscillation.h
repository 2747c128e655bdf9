// OsciReset of TetraJet-v2 (arXiv:2510.27527). A weight that lies between two numbers of a coarse format makes its
// quantised value jump back and forth while it hardly moves itself. In windows of a schedule, two paths are measured
// for every element of this rank's shard: sum |Q(w_t) - Q(w_t-1)| and sum |w_t - w_t-1|. At the end of a window, an
// element whose first path is at least `threshold` times the second is set to Q(w), the middle of the range that rounds
// to the same number. Moments and learning rate do not change.
//
// It follows the official implementation with two differences: it resets one step after the window's last, and it
// forgets an open window when a run is restarted. It works element by element, so nothing depends on ranks or threads.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "dist/device/arena.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// A window opens after the update of every step (counted from 0) that is a multiple of `every` and at least
// `first_step`. The `window` steps that follow are measured, and the last of them resets.
struct OscillationConfig {
  uint64_t first_step = 0;
  uint64_t every = 200;
  uint64_t window = 50;  // below `every`
  float threshold = 8;
};

// State that a checkpoint keeps.
struct NamedState {
  std::string name;
  Tensor shard;  // [elements of the rank's shard]
};

class Oscillation {
 public:
  // Reads and writes all elements of this rank's shard; called from one thread. Spans are memory of the CPU; if the
  // weights are on a GPU, these functions copy them.
  struct Shard {
    std::function<void(std::span<float>)> read_weights;  // the weights that the optimizer updates
    // Reads Q(w), with NaN for elements that are not quantised; those are never reset.
    std::function<void(std::span<float>)> read_quantized;
    std::function<void(std::span<const float>)> write_weights;
  };

  // Takes five FP32 numbers an element from the arena, which is memory of the CPU.
  Oscillation(Arena& arena, const OscillationConfig& config, uint64_t elements);

  // The trainer calls before_update() and after_update() around the update of every step, also if it is not applied.
  void before_update(uint64_t step, const Shard& shard);
  // Returns the number of elements that were reset.
  uint64_t after_update(uint64_t step, const Shard& shard);
  // Returns true if after_update(step) may reset elements.
  bool resets_at(uint64_t step) const { return position(step) == config_.window; }

  // Returns the state that a checkpoint after `steps` steps must keep; it is empty outside a window.
  std::vector<NamedState> state(uint64_t steps) const;

 private:
  static constexpr uint64_t outside = UINT64_MAX;
  // Returns the position of a step in the schedule: 0 if a window opens after it, k in 1..window if it is the k-th
  // measured step, else `outside`.
  uint64_t position(uint64_t step) const;
  uint64_t reset(const Shard& shard);

  OscillationConfig config_;
  // All of these are f32 [elements].
  Tensor weight_path_, quantized_path_;
  Tensor last_quantized_;
  Tensor weights_;  // before the update
  Tensor scratch_;
};

}  // namespace nibble
