// A library that computes attention on the GPU, as the choice of its engines (attention_plans.h) sees it. cuDNN is the
// one that nibble has (cudnn_attention.h). Internal to attention and its tests, which bring libraries of their own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/ops/attention/attention.h"

namespace nibble::cuda {

enum class AttentionPass : uint8_t { forward, backward };

// One pass over bf16 problems of one shape, by one engine of the library.
class AttentionPlan {
 public:
  AttentionPlan() = default;
  virtual ~AttentionPlan() = default;
  AttentionPlan(const AttentionPlan&) = delete;
  AttentionPlan& operator=(const AttentionPlan&) = delete;

  virtual int64_t engine() const = 0;  // the library's number of it
  virtual int64_t workspace_floats() const = 0;
  // Each runs on a plan of its pass.
  virtual void forward(const AttentionForward& problem) const = 0;
  virtual void backward(const AttentionBackward& problem) const = 0;
};

class AttentionLibrary {
 public:
  AttentionLibrary() = default;
  virtual ~AttentionLibrary() = default;
  AttentionLibrary(const AttentionLibrary&) = delete;
  AttentionLibrary& operator=(const AttentionLibrary&) = delete;

  // Returns why the library computes nothing at all in this process; empty if it does.
  virtual std::string problem() const = 0;
  virtual std::string name() const = 0;  // "cuDNN 9.19.0", of a library without a problem

  // Returns the engines for a pass, best first; there may be none. Calling one makes its plan, which may take seconds.
  // Both throw ExitCode::bad_config, with the library's words, where it refuses.
  using Engine = std::function<std::unique_ptr<AttentionPlan>()>;
  virtual std::vector<Engine> engines(const AttentionShape& shape, AttentionPass pass) const = 0;
};

}  // namespace nibble::cuda
