// After an update every rank has its shard of the weights; this brings all of them to all ranks: as they are, or
// rounded to a format of fewer bits, the same on every rank and for any number of ranks, the shard's owner included.
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
  // With a format that rounds, memory for the packed weights comes from `memory`: construct in the measuring pass and
  // again after commit(). What is referred to must outlive the object.
  WeightGather(WeightFormat format, SharedArena& memory, const Partition& partition, int rank,
               std::span<const ParameterSegment> segments);

  // Collective. weights: the whole flat buffer, allocated from `memory`, in which this rank's shard is what the
  // optimizer left there; bf16 where the format rounds. Gathering what was gathered before changes nothing.
  void gather(const Tensor& weights);

  // "nvfp4, 4.61 bits a weight"; empty where nothing is rounded.
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
