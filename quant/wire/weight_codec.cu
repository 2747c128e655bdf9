#include "quant/wire/weight_codec.h"

#include "dist/device/launch.cuh"
#include "quant/format/hardware_conversions.cuh"
#include "quant/wire/weight_rounding.h"

namespace nibble::cuda {
namespace {

using namespace weight_rounding;

constexpr int at_once = 8;  // elements of a thread
constexpr int threads = block / at_once;
constexpr int warps = threads / warp_lanes;
constexpr int code_bytes_fp8 = block;
constexpr int code_bytes_nvfp4 = block / 2;

struct Packing {
  const WeightBlock* table;  // entry of the launch's first block
  BFloat16* weights;         // all weights, counted in halves; aligned to 16 bytes
  uint8_t* packed;           // the whole packed buffer; aligned to 16 bytes
};

__device__ __forceinline__ BFloat16 half_of(const uint32_t* words, int i) {
  return BFloat16{static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2)))};
}
// Packs eight BF16 numbers, decode(i) being number i.
template <class Decode>
__device__ __forceinline__ uint4 eight_halves(const Decode& decode) {
  uint32_t words[at_once / 2];
#pragma unroll
  for (int i = 0; i < at_once / 2; ++i) {
    words[i] = static_cast<uint32_t>(decode(2 * i).bits) | static_cast<uint32_t>(decode(2 * i + 1).bits) << 16;
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// Takes values that are equal within groups of `from` neighbouring lanes, and returns the largest value of each group
// of `to` lanes. Both are powers of two.
__device__ __forceinline__ uint32_t largest_of_lanes(uint32_t value, int from, int to) {
#pragma unroll
  for (int step = from; step < to; step *= 2) {
    const uint32_t other = __shfl_xor_sync(all_lanes, value, step);
    value = value > other ? value : other;
  }
  return value;
}

__device__ __forceinline__ uint32_t largest_of_block(uint32_t value, uint32_t* of_warps) {
  value = largest_of_lanes(value, nvfp4_group / at_once, warp_lanes);
  if (threadIdx.x % warp_lanes == 0) of_warps[threadIdx.x / warp_lanes] = value;
  __syncthreads();
  uint32_t result = 0;
#pragma unroll
  for (int warp = 0; warp < warps; ++warp) result = result > of_warps[warp] ? result : of_warps[warp];
  return result;
}

struct Eight {
  float value[at_once];
  uint32_t largest;  // largest magnitude of the eight
};
__device__ __forceinline__ Eight read_eight(uint4 halves, bool rounded) {
  const uint32_t words[] = {halves.x, halves.y, halves.z, halves.w};
  Eight eight{};
#pragma unroll
  for (int i = 0; i < at_once; ++i) {
    const BFloat16 weight = rounded ? half_of(words, i) : BFloat16{};
    eight.value[i] = element(weight);
    eight.largest = eight.largest > magnitude(weight) ? eight.largest : magnitude(weight);
  }
  return eight;
}

template <class Decode>
__device__ __forceinline__ void store_uncoded(const WeightBlock& entry, uint8_t* packed, bool rounded, uint4 halves,
                                              const Decode& decode) {
  if (threadIdx.x * at_once >= entry.halves) return;
  reinterpret_cast<uint4*>(packed)[threadIdx.x] = rounded ? eight_halves(decode) : halves;
}

__device__ __forceinline__ void pack_fp8(const WeightBlock& entry, uint8_t* packed, bool rounded, uint4 halves) {
  Eight eight = read_eight(halves, rounded);
  const uint32_t power = fp8_power(largest_of_lanes(eight.largest, 1, fp8_group / at_once));
  const float factor = power_reciprocal(power);
#pragma unroll
  for (float& value : eight.value) value *= factor;
  const uint32_t codes[] = {e4m3_nearest_four(eight.value), e4m3_nearest_four(eight.value + 4)};
  if (entry.kind != WeightBlock::Kind::coded) {
    store_uncoded(entry, packed, rounded, halves,
                  [&](int i) { return fp8_decode(codes[i / 4] >> (8 * (i % 4)) & 0xFFu, power); });
    return;
  }
  reinterpret_cast<uint2*>(packed)[threadIdx.x] = make_uint2(codes[0], codes[1]);
  constexpr int sharers = fp8_group / at_once;
  if (threadIdx.x % sharers == 0) packed[code_bytes_fp8 + threadIdx.x / sharers] = static_cast<uint8_t>(power);
}

__device__ __forceinline__ void pack_nvfp4(const WeightBlock& entry, uint8_t* packed, bool rounded, uint4 halves) {
  __shared__ uint32_t of_warps[warps];
  constexpr int sharers = nvfp4_group / at_once;
  Eight eight = read_eight(halves, rounded);
  const uint32_t of_group = largest_of_lanes(eight.largest, 1, sharers);
  const uint32_t power = nvfp4_power(largest_of_block(of_group, of_warps));
  const uint32_t scale = nvfp4_scale(of_group, power);
  const float unit = nvfp4_unit(scale, power);
  const float factor = 1.0f / unit;
#pragma unroll
  for (float& value : eight.value) value *= factor;
  const uint32_t codes = e2m1_nearest_eight(eight.value);
  if (entry.kind != WeightBlock::Kind::coded) {
    store_uncoded(entry, packed, rounded, halves, [&](int i) { return nvfp4_decode(codes >> (4 * i) & 15u, unit); });
    return;
  }
  reinterpret_cast<uint32_t*>(packed)[threadIdx.x] = codes;
  uint8_t* const scales = packed + code_bytes_nvfp4;
  if (threadIdx.x % sharers == 0) scales[threadIdx.x / sharers] = static_cast<uint8_t>(scale);
  if (threadIdx.x == 0) *reinterpret_cast<uint4*>(scales + block / nvfp4_group) = make_uint4(power, 0, 0, 0);
}

template <WeightFormat format>
__global__ void __launch_bounds__(threads) pack_weights_kernel(Packing packing) {
  const WeightBlock& entry = packing.table[blockIdx.x];
  const uint4* const weights = reinterpret_cast<const uint4*>(packing.weights + entry.weight);
  uint8_t* const packed = packing.packed + entry.offset;
  const uint4 halves = threadIdx.x * at_once < entry.halves ? weights[threadIdx.x] : make_uint4(0, 0, 0, 0);
  const bool rounded = entry.kind != WeightBlock::Kind::raw;
  if constexpr (format == WeightFormat::fp8) {
    pack_fp8(entry, packed, rounded, halves);
  } else {
    pack_nvfp4(entry, packed, rounded, halves);
  }
}

template <WeightFormat format>
__global__ void __launch_bounds__(threads) unpack_weights_kernel(Packing packing) {
  const WeightBlock& entry = packing.table[blockIdx.x];
  if (threadIdx.x * at_once >= entry.halves) return;
  uint4* const weights = reinterpret_cast<uint4*>(packing.weights + entry.weight) + threadIdx.x;
  const uint8_t* const packed = packing.packed + entry.offset;
  if (entry.kind != WeightBlock::Kind::coded) {
    *weights = reinterpret_cast<const uint4*>(packed)[threadIdx.x];
  } else if constexpr (format == WeightFormat::fp8) {
    const uint32_t power = packed[code_bytes_fp8 + threadIdx.x / (fp8_group / at_once)];
    const uint2 pair = reinterpret_cast<const uint2*>(packed)[threadIdx.x];
    const uint32_t codes[] = {pair.x, pair.y};
    *weights = eight_halves([&](int i) { return fp8_decode(codes[i / 4] >> (8 * (i % 4)) & 0xFFu, power); });
  } else {
    const uint8_t* const scales = packed + code_bytes_nvfp4;
    const float unit = nvfp4_unit(scales[threadIdx.x / (nvfp4_group / at_once)], scales[block / nvfp4_group]);
    const uint32_t codes = reinterpret_cast<const uint32_t*>(packed)[threadIdx.x];
    *weights = eight_halves([&](int i) { return nvfp4_decode(codes >> (4 * i) & 15u, unit); });
  }
}

void launch_packing(const char* name, void (*fp8)(Packing), void (*nvfp4)(Packing), const WeightPacking& problem) {
  const Packing packing{problem.table + problem.first, static_cast<BFloat16*>(problem.weights.data()),
                        problem.packed.as<uint8_t>()};
  NIBBLE_CHECK(reinterpret_cast<uintptr_t>(packing.weights) % sizeof(uint4) == 0 &&
                   reinterpret_cast<uintptr_t>(packing.packed) % sizeof(uint4) == 0,
               "weights begin at a multiple of 16 bytes");
  const LaunchShape shape{dim3(narrow<unsigned>(problem.end - problem.first)), dim3(threads)};
  launch(name, problem.format == WeightFormat::fp8 ? fp8 : nvfp4, shape, packing);
}

}  // namespace

void pack_weights(const WeightPacking& problem) {
  launch_packing("pack weights", pack_weights_kernel<WeightFormat::fp8>, pack_weights_kernel<WeightFormat::nvfp4>,
                 problem);
}

void unpack_weights(const WeightPacking& problem) {
  launch_packing("unpack weights", unpack_weights_kernel<WeightFormat::fp8>, unpack_weights_kernel<WeightFormat::nvfp4>,
                 problem);
}

}  // namespace nibble::cuda
