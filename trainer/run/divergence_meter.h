// Measures how far a model's predictions lie from those of another model with the same weights, beside its loss.
#pragma once

#include <cstdint>
#include <span>

#include "dist/device/arena.h"
#include "model/language_model.h"
#include "trainer/report/metrics.h"
#include "trainer/run/micro_batch.h"

namespace nibble {

class DivergenceMeter {
 public:
  // Both models are bound to their weights and take micro-batches of one shape. `reference` is P of KL(P || Q). Logits
  // of each model are in memory for one chunk of tokens (model/objectives/head.h) at a time.
  DivergenceMeter(LanguageModel& reference, DeviceKind device);

  // Returns the loss of `model`, Q, on a micro-batch as LanguageModel::forward() does, and writes the sum of KL(P || Q)
  // over the tokens of each sequence, in nats.
  double loss(LanguageModel& model, const MicroBatch& batch, const StepContext& context, std::span<double> divergences);

 private:
  LanguageModel& reference_;
  Arena arena_;
  Tensor sums_;  // f32 [chunk of the reference, 3]
};

// Returns the mean over all targets and its standard error, from the sums over sequences of `length` tokens.
Divergence divergence_of(std::span<const double> sums, uint64_t length);

}  // namespace nibble
