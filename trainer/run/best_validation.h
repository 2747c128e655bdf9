// The lowest validation loss of a run so far, for checkpoint.keep_best. Each checkpoint's manifest has it as the group
// of numbers "best", so that it is known after a resume on any number of ranks (docs/formats.md, "Manifest").
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/checkpoint/checkpoint_content.h"
#include "trainer/report/metrics.h"

namespace nibble {

class BestValidation {
 public:
  // `keep_best` is the value of checkpoint.keep_best; empty: there is never a best one.
  explicit BestValidation(std::string keep_best) : keep_best_(std::move(keep_best)) {}

  // Takes the losses of a validation. A loss that is lower than all before on the same text becomes the best; one that
  // is equal or not finite does not. Losses on other text than the best one's are not compared with it: the run begins
  // anew.
  void offer(uint64_t step, const std::vector<ValidationLoss>& losses);
  // The step of the best one; 0 = none. No validation belongs to step 0.
  uint64_t step() const { return step_; }
  void forget();

  void save(CheckpointState& state) const;
  void load(const CheckpointInfo& checkpoint);

 private:
  std::string keep_best_;
  uint64_t step_ = 0;
  double loss_ = std::numeric_limits<double>::infinity();
  uint64_t text_ = 0;  // a hash of the set's name and of the windows that were read
};

}  // namespace nibble
