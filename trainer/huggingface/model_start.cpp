#include "trainer/huggingface/model_start.h"

#include <fmt/format.h>

#include <string>
#include <vector>

#include "dist/base/log.h"
#include "trainer/arrays/stored_array.h"
#include "trainer/huggingface/source_tokenizer.h"

namespace nibble {
namespace {

// Returns whether the rows of the embedding come from the model, so that its token ids must be those of the shards.
bool takes_embedding(const TakenWeights& weights, const Layout& layout) {
  for (size_t i = 0; i < layout.tensors().size(); ++i) {
    if (layout.tensors()[i].use == TensorUse::embedding && weights.takes(i)) return true;
  }
  return false;
}

}  // namespace

ModelStart::ModelStart(Communicator& communicator, const RunConfig& config, const Layout& layout, const Mixture& data)
    : source_(open_model_source(communicator, config.model_origin.from)) {
  run_together(communicator, [&] {
    weights_.emplace(*source_, config.model, layout, config.model_origin.from_skip);
    if (communicator.rank() != 0 || !takes_embedding(*weights_, layout)) return;
    check_source_tokenizer(*source_, {.tokenizer = data.tokenizer_hash(), .file = tokenizer_path(config)});
  });
}

void ModelStart::read(Communicator& communicator, const Placement& owned, std::span<float> values) const {
  run_together(communicator, [&] { weights_->read(owned, communicator.rank(), values); });
  if (communicator.rank() != 0) return;
  const std::vector<std::string>& fresh = weights_->fresh();
  log_info("start      weights of {}{}", source_->location(),
           fresh.empty() ? "" : fmt::format(", but fresh ones for {}", listed(fresh, fresh.size())));
}

}  // namespace nibble
