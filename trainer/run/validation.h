// The loss of a model on a validation set, shared out over the ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "data/loader.h"
#include "dist/ranks/communicator.h"
#include "model/language_model.h"
#include "trainer/run/micro_batch.h"

namespace nibble {

struct ValidationSet {
  Loader& loader;
  uint64_t sequences = 0;            // 0 = all windows
  uint64_t sequences_per_batch = 1;  // the micro-batch: part of the definition of the loss, as quantisers see it whole
  uint64_t seed = 0;
  uint64_t step = 0;  // optimizer steps behind the weights
};

// Collective. Mean cross-entropy in nats a token of the model bound to its weights: the same bits on every rank and for
// any number of ranks. Nothing if interrupted() became true on some rank meanwhile.
std::optional<double> validation_loss(Communicator& communicator, LanguageModel& model, const ValidationSet& set,
                                      MicroBatch& micro_batch, const std::function<bool()>& interrupted);

}  // namespace nibble
