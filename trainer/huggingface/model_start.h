// The start of a run from a model that is there (model.from): weights alone, with a fresh optimizer at step 0.
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "data/mixture.h"
#include "dist/ranks/communicator.h"
#include "trainer/config/run_config.h"
#include "trainer/huggingface/model_source.h"

namespace nibble {

class ModelStart {
 public:
  // Collective. Opens model.from, compares its tensors with those of the run's model, and its tokenizer with that of
  // the training shards, unless the embedding is left out. Throws as TakenWeights and check_source_tokenizer() do.
  ModelStart(Communicator& communicator, const RunConfig& config, const Layout& layout, const Mixture& data);

  // Collective. Overwrites the fresh weights that this rank owns, f32, by those of the model.
  void read(Communicator& communicator, const Placement& owned, std::span<float> values) const;

 private:
  std::unique_ptr<ModelSource> source_;
  std::optional<TakenWeights> weights_;
};

}  // namespace nibble
