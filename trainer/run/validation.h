// The losses of a model on the validation sets of a run. Each rank computes a part of the micro-batches.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/loader.h"
#include "dist/ranks/communicator.h"
#include "model/language_model.h"
#include "trainer/config/run_config.h"
#include "trainer/report/metrics.h"
#include "trainer/run/divergence_meter.h"
#include "trainer/run/micro_batch.h"

namespace nibble {

// Throws ExitCode::bad_config if data.document_mask asks for documents and a shard does not tell them apart.
void refuse_unknown_documents(const RunConfig& config, const Loader& set);

class Validation {
 public:
  struct Set {
    std::string name;  // as in data.validation
    std::unique_ptr<Loader> loader;
    std::vector<uint64_t> windows;  // that are read: all, or eval.sequences of them, one out of each part of the set
    std::string data_fingerprint;   // of these windows
    bool has_bytes = false;         // the tokenizer of these shards is known
  };

  // Opens the shards of data.validation, which names at least one set. Not collective.
  explicit Validation(const RunConfig& config);
  const std::vector<Set>& sets() const { return sets_; }

  // Collective. Returns the losses, in the order of the sets, of a model that is bound to the weights after `step`
  // optimizer steps. A loss is a mean over targets; its bits are the same on every rank and for any number of ranks,
  // and depend on the size of a micro-batch, since quantisers take a whole one. Returns nothing if interrupted() became
  // true on some rank before the end.
  // With a meter the results have the divergence from its model.
  std::optional<std::vector<ValidationLoss>> losses(Communicator& communicator, LanguageModel& model, uint64_t step,
                                                    const std::function<bool()>& interrupted,
                                                    DivergenceMeter* meter = nullptr);

 private:
  // The models of one call of losses().
  struct Models {
    LanguageModel& model;
    DivergenceMeter* meter;  // may be null
    uint64_t step;
  };
  std::optional<ValidationLoss> loss_of(Communicator& communicator, const Models& models, const Set& set,
                                        const std::function<bool()>& interrupted);

  // The loss of a micro-batch, a sum over its targets, and the bytes of their text.
  struct Part {
    double loss = 0;
    uint64_t bytes = 0;
  };
  Part compute(const Models& models, const Set& set, uint64_t micro_batch, std::span<double> divergences);

  uint64_t seed_;
  std::vector<uint32_t> token_bytes_;  // by id; empty if no tokenizer is known
  std::vector<Set> sets_;
  MicroBatch micro_batch_;
  uint64_t micro_batch_sequences_;
};

}  // namespace nibble
