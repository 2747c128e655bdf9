// One update of a shard, as optim/adamw/adamw.cpp gives it to a device. This header is internal to optim. The sources
// are adamw.cpp and adamw.cu, and adamw_offload.cu for a state that stays in memory of the CPU.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "optim/adamw/adamw_update.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// The elements of one parameter that lie in the shard.
struct AdamWPiece {
  uint64_t shard_offset = 0;  // index in the shard of its first element, a multiple of 8
  uint64_t element = 0;       // index in the parameter of the same element, a multiple of 8
  uint64_t count = 0;
  uint32_t tensor_id = 0;
  float decay_rate = 0;
};

// An update of a shard. All tensors are [elements of the shard] and begin at multiples of 16 bytes.
struct AdamWProblem {
  cpu::AdamWUpdate update;  // decay_rate is set for each piece
  std::vector<AdamWPiece> pieces;
  Tensor gradients;  // f32
  Tensor weights;
  Tensor first_moment, second_moment;
  Tensor master;  // f32 or empty
};

// Returns the pieces that lie in elements [begin, end) of the shard, with positions counted from `begin`.
std::vector<AdamWPiece> pieces_between(const std::vector<AdamWPiece>& pieces, uint64_t begin, uint64_t end);

namespace cpu {
void adamw(const AdamWProblem& problem);
}
namespace cuda {
void adamw(const AdamWProblem& problem);

// An update with state on the CPU and gradients and weights on the GPU. Strip after strip is copied to the CPU and
// updated there, and its weights go back, while the next strip is on its way.
struct StripUpdate {
  Tensor gradients;  // f32 [elements]
  Tensor weights;    // [elements]
  // Updates elements [begin, end); both tensors are on the CPU.
  std::function<void(uint64_t begin, uint64_t end, const Tensor& gradients, const Tensor& weights)> update;
};
void update_in_strips(const StripUpdate& problem);
}  // namespace cuda

}  // namespace nibble
