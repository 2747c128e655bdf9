// The loss of a model on a validation set. Each rank computes a part of the micro-batches.
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
  uint64_t sequences = 0;              // windows, one out of each part of the set (spread_window()); 0 = all
  uint64_t micro_batch_sequences = 1;  // size of a micro-batch; the loss depends on it, as quantisers take a whole one
  uint64_t seed = 0;
  uint64_t step = 0;  // number of optimizer steps that made the weights
};

// Collective. Returns the mean cross-entropy, in nats per token, of a model that is bound to its weights. The bits are
// the same on every rank and for any number of ranks. Returns nothing if interrupted() became true on some rank before
// the end.
std::optional<double> validation_loss(Communicator& communicator, LanguageModel& model, const ValidationSet& set,
                                      MicroBatch& micro_batch, const std::function<bool()>& interrupted);

}  // namespace nibble
