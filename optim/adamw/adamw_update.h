// AdamW on one element, for every device, and on a range of one tensor, for each instruction-set level
// (adamw_portable.cpp, adamw_avx2.cpp, adamw_avx512.cpp). All compute the same bits. This header is internal to optim;
// tests use it to run every level that the machine has. It has plain data only, like quant/gemm/cpu/gemm_kernels.h.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "quant/format/dtype.h"
#include "quant/format/host_device.h"
#include "quant/format/philox.h"
#include "quant/isa/instruction_set.h"

namespace nibble::cpu {

constexpr size_t adamw_strip = 128;  // elements of one pass: 16 blocks of random bits

// The values that do not change from element to element of a tensor.
struct AdamWUpdate {
  float beta1, complement1, beta2, complement2;
  float correction1, correction2;
  float epsilon, rate, decay_rate, grad_scale;
  NoiseStream weight_noise, first_moment_noise, second_moment_noise;
};

struct AdamWElement {
  float first_moment, second_moment, weight;
};

// Computes the formula of optim/adamw/adamw.h. `before` holds the values as loaded.
NIBBLE_HOST_DEVICE AdamWElement updated(const AdamWUpdate& update, float gradient, const AdamWElement& before) {
  const float g = gradient * update.grad_scale;
  const float m = update.beta1 * before.first_moment + update.complement1 * g;
  const float v = update.beta2 * before.second_moment + update.complement2 * (g * g);
  const float direction = (m * update.correction1) / (std::sqrt(v * update.correction2) + update.epsilon);
  return {m, v, before.weight - (update.rate * direction + update.decay_rate * before.weight)};
}

// The same range of elements of every buffer. For the moments, either both FP32 or both BF16 pointers are null.
struct AdamWBuffers {
  const float* gradients;
  float* first_moment_f32;
  float* second_moment_f32;
  BFloat16* first_moment_bf16;
  BFloat16* second_moment_bf16;
  float* master;  // FP32 values that the update reads and writes: FP32 weights, or masters of BF16 weights; or null
  BFloat16* weights_bf16;  // null for FP32 weights
};

// Updates `count` elements of a tensor, beginning at element `element`, a multiple of 8.
using AdamWKernel = void (*)(const AdamWUpdate& update, const AdamWBuffers& buffers, uint64_t element, size_t count);

void adamw_portable(const AdamWUpdate& update, const AdamWBuffers& buffers, uint64_t element, size_t count);
void adamw_avx2(const AdamWUpdate& update, const AdamWBuffers& buffers, uint64_t element, size_t count);
void adamw_avx512(const AdamWUpdate& update, const AdamWBuffers& buffers, uint64_t element, size_t count);

AdamWKernel adamw_kernel(InstructionSet level);

}  // namespace nibble::cpu
