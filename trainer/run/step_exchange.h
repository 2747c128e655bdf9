// The port (model/exchange.h) through which a training session's model computes: views of the run's flat buffers. Every
// call is an event of the walk that all ranks make alike: it tells the control where this rank stands, and throws the
// run's error once another rank has raised one.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>

#include "dist/ranks/communicator.h"
#include "model/exchange.h"
#include "trainer/config/fault_throw.h"
#include "trainer/config/run_config.h"

namespace nibble {

class StepExchange final : public LocalExchange {
 public:
  StepExchange(Communicator& communicator, const RunConfig& config);

  // The passes that follow belong to this step, as in the log; 0 for those of a validation.
  void begin_step(uint64_t step) { step_ = step; }
  // From now on completed(bucket) is called when the bucket's gradients of the micro-batch are complete. An empty
  // function ends this.
  void set_completed(std::function<void(uint32_t bucket)> completed) { completed_ = std::move(completed); }

  bool communicates() const override { return completed_ || fault_is_due(); }
  BucketView acquire(uint32_t bucket, Direction direction) override;
  void complete(uint32_t bucket) override;

 private:
  bool fault_is_due() const { return fault_ && fault_->step == step_; }

  Control& control_;
  std::optional<FaultThrow> fault_;  // of this rank
  uint64_t step_ = 0;
  std::function<void(uint32_t bucket)> completed_;
};

}  // namespace nibble
