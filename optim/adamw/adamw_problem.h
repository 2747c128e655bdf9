// One update, as optim/adamw/adamw.cpp gives it to a device. This header is internal to optim. The sources
// are adamw.cpp and adamw.cu, and adamw_offload.cu for a state that stays in memory of the CPU.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "optim/adamw/adamw_update.h"
#include "optim/optimizer.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// An update of slices whose weights have one dtype. All tensors begin at multiples of 16 bytes.
struct AdamWProblem {
  cpu::AdamWUpdate update;  // decay_rate applies to the tensors that decay
  const Layout* layout = nullptr;
  std::vector<OwnedSlice> slices;
  Tensor gradients;  // f32
  Tensor weights;    // f32 or bf16
  Tensor first_moment, second_moment;
  Tensor master;  // f32 or empty
};

// Elements of one matrix. Positions are elements of the tensors of the problem.
struct AdamWPart {
  uint64_t gradient_at = 0;
  uint64_t weight_at = 0;
  uint64_t state_at = 0;
  uint64_t element = 0;  // index in the matrix of the first element, a multiple of 8
  uint64_t count = 0;
  uint32_t tensor_id = 0;
  float decay_rate = 0;
};
std::vector<AdamWPart> parts_of(const AdamWProblem& problem);

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
