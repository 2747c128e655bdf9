// What quantisation does to a run while it trains: every telemetry.every steps, on the step's first micro-batch, what
// each quantiser lost, and how far each linear weight's gradient lies from the one that a probe finds: the same weights
// and micro-batch without quantisation. A step with telemetry has the same bits as one without, and the figures do not
// depend on the number of ranks.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dist/device/arena.h"
#include "dist/ranks/communicator.h"
#include "model/language_model.h"
#include "trainer/config/run_config.h"
#include "trainer/report/telemetry_record.h"

namespace nibble {

// The micro-batch that was examined, and what came of it.
struct ExaminedMicroBatch {
  Tensor weights;    // [flat_size], model dtype
  Tensor gradients;  // f32 [flat_size]: of this micro-batch alone
  Tensor tokens, targets, documents;
  StepContext context;
  float loss_scale = 1;
};

class Telemetry {
 public:
  // Collective. Plans and takes the probe's memory on the one rank that examines, if there is to be a probe. groups: of
  // the gradient sum; group 0 holds the micro-batch that is examined.
  Telemetry(Communicator& communicator, const RunConfig& config, uint64_t groups);

  // Whether the first micro-batch of this step (counted from 0) is to be examined.
  bool due(uint64_t step) const;
  // On the rank of group 0, before and after the micro-batch's forward_backward(), with gradients that began at zero.
  // Another attempt at the step overwrites the figures.
  void begin(LanguageModel& model);
  void end(LanguageModel& model, const ExaminedMicroBatch& micro_batch);
  // Collective, after the last attempt at the step. The figures are on rank 0; elsewhere, and where none are due,
  // nothing.
  std::optional<TelemetryRecord> collect(uint64_t step);

  // "every 100 steps, with a bf16 probe on rank 0: 12.3 MB"; "off".
  std::string describe() const;

 private:
  bool examines() const { return communicator_.rank() == rank_; }
  void build_probe();
  void run_probe(const ExaminedMicroBatch& micro_batch);

  Communicator& communicator_;
  const RunConfig& config_;
  int rank_ = 0;  // the one that examines
  std::unique_ptr<LanguageModel> probe_;
  std::unique_ptr<Arena> probe_arena_;
  Tensor probe_gradients_;  // f32 [flat_size]
  uint64_t probe_bytes_ = 0;
  std::vector<LinearStatistics> statistics_;  // [linear layers]
  TelemetryRecord record_;
};

}  // namespace nibble
