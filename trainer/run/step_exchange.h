// The port (model/exchange.h) through which a training session's model computes: views of the run's flat buffers.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "model/exchange.h"

namespace nibble {

class StepExchange final : public LocalExchange {
 public:
  // From now on completed(bucket) is called when the bucket's gradients of the micro-batch are complete. An empty
  // function ends this.
  void set_completed(std::function<void(uint32_t bucket)> completed) { completed_ = std::move(completed); }

  bool communicates() const override { return static_cast<bool>(completed_); }
  void complete(uint32_t bucket) override {
    if (completed_) completed_(bucket);
  }

 private:
  std::function<void(uint32_t bucket)> completed_;
};

}  // namespace nibble
