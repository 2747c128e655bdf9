#include <algorithm>
#include <cstdint>

#include "dist/device/launch.cuh"
#include "optim/adamw/adamw_problem.h"
#include "quant/format/codec.h"

namespace nibble::cuda {
namespace {

constexpr int at_once = 8;  // elements of a thread; they use one block of random bits of each stream
constexpr int threads = 256;
constexpr int most_parts = 64;  // parts of a launch, whose parameters must stay below 4 KiB

enum class Weights { f32, bf16, bf16_with_master };

struct Entry {
  AdamWPart part;
  uint32_t first_block;  // first block of the grid that works on this part
};

struct Batch {
  cpu::AdamWUpdate update;
  const float* gradients;
  void* first_moment;
  void* second_moment;
  float* master;
  void* weights;
  int entries;
  Entry entry[most_parts];
};

// Loads eight numbers from `from` on, of which `count` exist; those that do not exist are zero.
__device__ __forceinline__ void load_eight(const float* from, int count, float (&to)[at_once]) {
  if (count == at_once) {
    const float4 low = reinterpret_cast<const float4*>(from)[0];
    const float4 high = reinterpret_cast<const float4*>(from)[1];
    to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
    to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < at_once; ++i) to[i] = i < count ? from[i] : 0.0f;
}
__device__ __forceinline__ void load_eight(const BFloat16* from, int count, float (&to)[at_once]) {
  if (count == at_once) {
    const uint4 packed = *reinterpret_cast<const uint4*>(from);
    const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      to[i] = to_float(BFloat16{static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2)))});
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < at_once; ++i) to[i] = i < count ? to_float(from[i]) : 0.0f;
}

__device__ __forceinline__ void store_eight(float* to, int count, const float (&values)[at_once]) {
  if (count == at_once) {
    reinterpret_cast<float4*>(to)[0] = make_float4(values[0], values[1], values[2], values[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(values[4], values[5], values[6], values[7]);
    return;
  }
#pragma unroll
  for (int i = 0; i < at_once; ++i) {
    if (i < count) to[i] = values[i];
  }
}
// Stores up to eight numbers as BF16; round(value, i) returns the bits of element i.
template <class Round>
__device__ __forceinline__ void store_eight(BFloat16* to, int count, const float (&values)[at_once],
                                            const Round& round) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    words[i] = static_cast<uint32_t>(round(values[2 * i], 2 * i).bits) |
               static_cast<uint32_t>(round(values[2 * i + 1], 2 * i + 1).bits) << 16;
  }
  if (count == at_once) {
    *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
    return;
  }
#pragma unroll
  for (int i = 0; i < at_once; ++i) {
    if (i < count) to[i] = BFloat16{static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2)))};
  }
}

// Stores up to eight numbers as BF16, rounded with the random bits of one block of a stream.
__device__ __forceinline__ void store_eight_stochastic(BFloat16* to, int count, const float (&values)[at_once],
                                                       NoiseStream stream, uint32_t tensor_id, uint64_t block) {
  stream.tensor_id = tensor_id;
  const PhiloxBlock random = random_block(stream, block);
  store_eight(to, count, values, [&](float value, int i) {
    return bf16_stochastic(value, random.word[i / 2] >> (16 * (i % 2)) & 0xFFFFu);
  });
}

__device__ __forceinline__ int entry_of_block(const Batch& batch) {
  int low = 0;
  int high = batch.entries;  // the part is in [low, high)
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (batch.entry[middle].first_block <= blockIdx.x) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

template <class Moment, Weights weights>
__global__ void __launch_bounds__(threads) adamw_kernel(Batch batch) {
  const Entry& entry = batch.entry[entry_of_block(batch)];
  const AdamWPart& part = entry.part;
  const uint64_t first = (uint64_t{blockIdx.x - entry.first_block} * threads + threadIdx.x) * at_once;
  if (first >= part.count) return;
  const uint64_t left = part.count - first;
  const int count = left < at_once ? static_cast<int>(left) : at_once;
  const uint64_t state_at = part.state_at + first;
  const uint64_t weight_at = part.weight_at + first;
  const uint64_t random = (part.element + first) / at_once;
  cpu::AdamWUpdate update = batch.update;
  update.decay_rate = part.decay_rate;

  Moment* const first_moment = static_cast<Moment*>(batch.first_moment) + state_at;
  Moment* const second_moment = static_cast<Moment*>(batch.second_moment) + state_at;
  BFloat16* const rounded = static_cast<BFloat16*>(batch.weights) + weight_at;
  float* const exact =
      weights == Weights::bf16_with_master ? batch.master + state_at : static_cast<float*>(batch.weights) + weight_at;
  float g[at_once];
  float m[at_once];
  float v[at_once];
  float w[at_once];
  load_eight(batch.gradients + part.gradient_at + first, count, g);
  load_eight(first_moment, count, m);
  load_eight(second_moment, count, v);
  if constexpr (weights == Weights::bf16) {
    load_eight(rounded, count, w);
  } else {
    load_eight(exact, count, w);
  }
#pragma unroll
  for (int i = 0; i < at_once; ++i) {
    const cpu::AdamWElement after = updated(update, g[i], {m[i], v[i], w[i]});
    m[i] = after.first_moment;
    v[i] = after.second_moment;
    w[i] = after.weight;
  }
  if constexpr (std::is_same_v<Moment, float>) {
    store_eight(first_moment, count, m);
    store_eight(second_moment, count, v);
  } else {
    store_eight_stochastic(first_moment, count, m, update.first_moment_noise, part.tensor_id, random);
    store_eight_stochastic(second_moment, count, v, update.second_moment_noise, part.tensor_id, random);
  }
  if constexpr (weights == Weights::bf16) {
    store_eight_stochastic(rounded, count, w, update.weight_noise, part.tensor_id, random);
  } else {
    store_eight(exact, count, w);
  }
  if constexpr (weights == Weights::bf16_with_master) {
    store_eight(rounded, count, w, [](float value, int) { return bf16_nearest(value); });
  }
}

template <class Moment>
void launch_batch(const Batch& batch, const LaunchShape& shape, bool bf16) {
  if (!bf16) {
    launch("adamw", adamw_kernel<Moment, Weights::f32>, shape, batch);
  } else if (batch.master == nullptr) {
    launch("adamw", adamw_kernel<Moment, Weights::bf16>, shape, batch);
  } else {
    launch("adamw", adamw_kernel<Moment, Weights::bf16_with_master>, shape, batch);
  }
}

void check_alignment(const Tensor& tensor) {
  NIBBLE_CHECK(reinterpret_cast<uintptr_t>(tensor.data()) % alignof(float4) == 0,
               "the optimizer's buffers begin at multiples of 16 bytes");
}

}  // namespace

void adamw(const AdamWProblem& problem) {
  for (const Tensor* tensor :
       {&problem.gradients, &problem.weights, &problem.first_moment, &problem.second_moment, &problem.master}) {
    check_alignment(*tensor);
  }
  Batch batch{.update = problem.update,
              .gradients = problem.gradients.as<float>(),
              .first_moment = problem.first_moment.data(),
              .second_moment = problem.second_moment.data(),
              .master = problem.master.empty() ? nullptr : problem.master.as<float>(),
              .weights = problem.weights.data(),
              .entries = 0,
              .entry = {}};
  const std::vector<AdamWPart> parts = parts_of(problem);
  for (size_t first = 0; first < parts.size(); first += most_parts) {
    const size_t end = std::min<size_t>(first + most_parts, parts.size());
    uint64_t blocks = 0;
    batch.entries = 0;
    for (size_t i = first; i < end; ++i) {
      batch.entry[batch.entries++] = {parts[i], narrow<uint32_t>(blocks)};
      blocks += div_ceil<uint64_t>(parts[i].count, threads * at_once);
    }
    const LaunchShape shape{dim3(narrow<uint32_t>(blocks)), dim3(threads)};
    const bool bf16 = problem.weights.dtype() == DType::bf16;
    if (problem.first_moment.dtype() == DType::f32) {
      launch_batch<float>(batch, shape, bf16);
    } else {
      launch_batch<BFloat16>(batch, shape, bf16);
    }
  }
}

}  // namespace nibble::cuda
