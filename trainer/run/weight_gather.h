// Brings all weights to all ranks after an update, which leaves every rank with its own shard. The weights are sent
// unchanged or rounded to a format of fewer bits. All ranks get the same bits, the shard's owner included, and the bits
// do not depend on the number of ranks.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "dist/ranks/shared_arena.h"
#include "dist/zero/partition.h"
#include "optim/adamw/adamw.h"
#include "quant/tensor/tensor.h"
#include "quant/wire/weight_codec.h"

namespace nibble {

class WeightGather {
 public:
  // With a format that rounds, memory for the packed weights comes from `memory`: construct the object in its measuring
  // pass and again after commit(). All arguments that are references or spans must outlive the object.
  WeightGather(WeightFormat format, SharedArena& memory, const Partition& partition, int rank,
               std::span<const ParameterSegment> segments);

  // Collective. `weights` is the whole flat buffer, allocated from `memory`; its part that is this rank's shard holds
  // the result of the optimizer. It must be bf16 if the format rounds. Gathering twice changes nothing.
  void gather(const Tensor& weights);

  // Returns a text such as "nvfp4, 4.61 bits a weight", or an empty text if nothing is rounded.
  std::string describe() const;

 private:
  WeightFormat format_;
  SharedArena& memory_;
  const Partition& partition_;
  int rank_;
  std::optional<WeightCodec> codec_;
  Tensor packed_;                         // u8
  std::vector<uint64_t> packed_offsets_;  // [ranks + 1], bytes
};

}  // namespace nibble
