// The port through which a model reaches weights and gradients. The model walks its buckets (ParameterTable::buckets():
// the embedding, one for each block, the objectives') and knows neither ranks nor where a tensor lies; whoever trains
// it implements the port. A call is one event of a step, and all ranks of a run make the same calls in the same order.
//
// In forward, buckets are acquired from the first to the last. Backward begins with the objectives, whose loss and
// gradient are one call, and goes to the embedding. A head with a tied weight also acquires the embedding's bucket.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dist/base/enum_names.h"
#include "model/layers/parameter.h"
#include "model/layers/weight_view.h"

namespace nibble {

enum class Direction : uint8_t { forward, backward };
constexpr auto enum_names(Direction) {
  return std::to_array<EnumName<Direction>>({{Direction::forward, "forward"}, {Direction::backward, "backward"}});
}

class Exchange {
 public:
  virtual ~Exchange() = default;

  // Returns true if calls exchange data with other ranks, or must be seen one by one for another reason. Where it is
  // false, a device may run the pass of a whole micro-batch as one graph.
  virtual bool communicates() const { return false; }

  // Returns the bucket's weights, and in backward also its gradients, to which the caller adds. The views are valid
  // until release(). May throw: then the pass ends.
  virtual BucketView acquire(uint32_t bucket, Direction direction) = 0;
  virtual void release(uint32_t bucket, Direction direction);
  // Says that nothing more is added to the bucket's gradients in this micro-batch, once the work that was given to the
  // device before the call is done. Buckets are completed from the last to the first.
  virtual void complete(uint32_t bucket);
};

// Views of flat buffers that hold all parameters.
class LocalExchange : public Exchange {
 public:
  // `weights` is as allocate_weights() makes it, `gradients` f32 [flat_size], or empty for inference.
  void bind(const ParameterTable& table, const Tensor& weights, const Tensor& gradients);

  BucketView acquire(uint32_t bucket, Direction direction) override;
  // Of the table that was bound last: "embedding", "blocks.3", "head".
  const std::string& bucket_name(uint32_t bucket) const { return names_[bucket]; }

 private:
  Tensor weights_;
  std::vector<std::string> names_;      // [buckets]
  std::vector<WeightView> views_;       // [parameters]
  std::vector<uint32_t> first_tensor_;  // [buckets + 1]
  uint64_t weights_version_ = 0;
};

}  // namespace nibble
