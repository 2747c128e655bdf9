// Measures the errors of quantisation while a run trains. Every telemetry.every steps, on the step's first micro-batch,
// it records the error of each quantiser, and how far the gradient of each linear weight lies from that of a probe: a
// model with the same weights and micro-batch that does not quantise. A step with telemetry has the same bits as one
// without, and the figures do not depend on the number of ranks.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dist/device/arena.h"
#include "dist/ranks/communicator.h"
#include "dist/zero/schedule.h"
#include "model/language_model.h"
#include "trainer/config/run_config.h"
#include "trainer/report/telemetry_record.h"
#include "trainer/state/step_state.h"

namespace nibble {

class Telemetry final : public StepState {
 public:
  // Collective. Plans and takes the probe's memory, if there is a probe, on the one rank that measures. The
  // measured micro-batch is the first one. With `plans_only` no memory is taken, and nothing can be measured.
  Telemetry(Communicator& communicator, const RunConfig& config, const Schedule& schedule, bool plans_only = false);

  std::string_view name() const override { return "telemetry"; }
  // The first micro-batch of a step is measured; the gradients are then its own. Another attempt at the step
  // overwrites the figures.
  void begin_micro_batch(const StepEvent& event) override;
  bool reads_gradients(const StepEvent& event) const override { return measured(event); }
  void end_micro_batch(const StepEvent& event) override;
  // Collective; call it after the last attempt at the step. Returns the figures on rank 0 if they are due; nothing on
  // other ranks and steps.
  std::optional<TelemetryRecord> collect(uint64_t step);

  // Returns the bytes of the probe on this rank.
  uint64_t own_probe_bytes() const { return own_probe_bytes_; }
  // Returns a text such as "every 100 steps, with a bf16 probe on rank 0: 12.3 MB", or "off".
  std::string describe() const override;

 private:
  bool measures() const { return communicator_.rank() == rank_; }
  bool due(uint64_t step) const;  // whether the step is measured
  bool measured(const StepEvent& event) const { return event.micro_batch == 0 && due(event.step); }
  void build_probe(bool plans_only);
  void run_probe(const MicroBatchTensors& micro_batch);

  Communicator& communicator_;
  const RunConfig& config_;
  int rank_ = 0;  // the rank that measures
  std::unique_ptr<LanguageModel> probe_;
  std::unique_ptr<Arena> probe_arena_;
  Tensor probe_gradients_;  // f32 [flat_size]
  uint64_t own_probe_bytes_ = 0;
  uint64_t probe_bytes_ = 0;                  // on the rank that measures
  std::vector<LinearStatistics> statistics_;  // [linear layers]
  TelemetryRecord record_;
};

}  // namespace nibble
