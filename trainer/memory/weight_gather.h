// Brings all weights to all ranks after an update, which leaves every rank with its own shard. The weights are sent
// unchanged or rounded to a format of fewer bits. All ranks get the same bits, the shard's owner included, and the bits
// do not depend on the number of ranks.
#pragma once

#include <optional>
#include <string>

#include "dist/ranks/shared_arena.h"
#include "dist/zero/placement.h"
#include "quant/tensor/tensor.h"
#include "quant/wire/weight_codec.h"

namespace nibble {

class WeightGather {
 public:
  // With a format that rounds, memory for the packed weights comes from `memory`: construct the object in its measuring
  // pass and again after commit(). `memory` must outlive the object. `owned` gives each rank one range of the logical
  // order, and these follow each other.
  WeightGather(WeightFormat format, SharedArena& memory, const Placement& owned, int rank);

  // Collective. `weights` is the whole flat buffer, allocated from `memory`; its part that is this rank's shard holds
  // the result of the optimizer. It must be bf16 if the format rounds. Gathering twice changes nothing.
  void gather(const Tensor& weights);

  // Returns a text such as "nvfp4, 4.61 bits a weight", or an empty text if nothing is rounded.
  std::string describe() const;

 private:
  WeightFormat format_;
  SharedArena& memory_;
  uint64_t elements_;  // of the logical order
  Range own_;          // this rank's
  std::optional<WeightCodec> codec_;
  Tensor packed_;                  // u8
  std::vector<uint64_t> offsets_;  // [ranks + 1]: where each rank's bytes begin, packed or not
};

}  // namespace nibble
