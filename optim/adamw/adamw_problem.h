// One update of a shard, as optim/adamw/adamw.cpp asks it of a device. Internal to optim.
// Implemented in adamw.cpp and adamw.cu; for a state that stays in memory of the CPU in adamw_offload.cu.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "optim/adamw/adamw_update.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// The elements of one parameter that lie in the shard.
struct AdamWPiece {
  uint64_t place = 0;    // of its first element in the shard, a multiple of 8
  uint64_t element = 0;  // of the same in the parameter, a multiple of 8
  uint64_t count = 0;
  uint32_t tensor_id = 0;
  float decay_rate = 0;
};

// All tensors are [elements of the shard] and begin at multiples of 16 bytes.
struct AdamWProblem {
  cpu::AdamWUpdate update;  // but for what a piece says
  std::vector<AdamWPiece> pieces;
  Tensor gradients;  // f32
  Tensor weights;
  Tensor first_moment, second_moment;
  Tensor master;  // f32 or empty
};

// The pieces of elements [begin, end) of the shard, counted from there.
std::vector<AdamWPiece> pieces_between(const std::vector<AdamWPiece>& pieces, uint64_t begin, uint64_t end);

namespace cpu {
void adamw(const AdamWProblem& problem);
}
namespace cuda {
void adamw(const AdamWProblem& problem);

// For state on the CPU and gradients and weights on the GPU: strip after strip they come to the CPU, are updated there,
// and the weights go back, while the next strip is on its way.
struct StripUpdate {
  Tensor gradients;  // f32 [elements]
  Tensor weights;    // [elements]
  // Of elements [begin, end): tensors on the CPU.
  std::function<void(uint64_t begin, uint64_t end, const Tensor& gradients, const Tensor& weights)> update;
};
void update_in_strips(const StripUpdate& problem);
}  // namespace cuda

}  // namespace nibble
