#include "trainer/run/best_validation.h"

#include <algorithm>
#include <bit>

#include "dist/base/error.h"
#include "dist/base/hash.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/config/run_config.h"

namespace nibble {

void BestValidation::offer(uint64_t step, const std::vector<ValidationLoss>& losses) {
  if (keep_best_.empty()) return;
  const auto set = std::ranges::find_if(losses, [&](const ValidationLoss& loss) {
    return (loss.name.empty() ? unnamed_validation : std::string_view(loss.name)) == keep_best_;
  });
  NIBBLE_CHECK(set != losses.end(), "checkpoint.keep_best is checked when it is read");
  const std::string text = set->name + " " + set->data_fingerprint;
  if (const uint64_t hash = hash64(std::string_view(text)); hash != text_) {
    forget();
    text_ = hash;
  }
  if (!(set->loss < loss_)) return;  // also where it is not a number
  step_ = step;
  loss_ = set->loss;
}

void BestValidation::forget() {
  step_ = 0;
  loss_ = std::numeric_limits<double>::infinity();
}

void BestValidation::save(CheckpointState& state) const {
  if (step_ == 0) return;
  state.numbers.push_back({std::string(best_step_number), step_});
  state.numbers.push_back({"best/loss_bits", std::bit_cast<uint64_t>(loss_)});
  state.numbers.push_back({"best/text", text_});
}

void BestValidation::load(const CheckpointInfo& checkpoint) {
  if (keep_best_.empty() || checkpoint.number(best_step_number) == 0) return;
  step_ = checkpoint.number(best_step_number);
  loss_ = std::bit_cast<double>(checkpoint.number("best/loss_bits"));
  text_ = checkpoint.number("best/text");
}

}  // namespace nibble
