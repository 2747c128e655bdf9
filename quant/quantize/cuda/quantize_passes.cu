#include "quant/quantize/cuda/quantize_passes.cuh"

#include <type_traits>

#include "dist/device/cuda_device.h"
#include "quant/quantize/cuda/quantize_cast.cuh"

namespace nibble::cuda {
namespace {

// ---- Tensor scales ----

__global__ void clear_kernel(const __grid_constant__ CastLaunch problem) {
  if (threadIdx.x >= static_cast<unsigned>(problem.count)) return;
  float* scale = problem.operands[threadIdx.x].tensor_scale;
  scale[0] = scale[1] = 0;
}

__global__ void finish_kernel(const __grid_constant__ CastLaunch problem) {
  if (threadIdx.x >= static_cast<unsigned>(problem.count)) return;
  const OperandCast& operand = problem.operands[threadIdx.x];
  const TensorScale scale = operand.origin == ScaleOrigin::corrected
                                ? tensor_scale_of(operand.tensor_scale[0], operand.largest)
                                : scale_before_cast(operand);
  operand.tensor_scale[0] = nan_unless_finite(operand.tensor_scale[1], scale.decode);
}

// ---- Amax ----

struct AmaxTargets {
  uint32_t* of[2];  // or null
};

// Includes the block's amax in the targets. All threads of the block must call it.
__device__ __forceinline__ void include_amax(uint32_t amax, uint32_t* block_amax, const AmaxTargets& targets) {
  amax = __reduce_max_sync(all_lanes, amax);
  if (threadIdx.x % warp_lanes == 0) atomicMax(block_amax, amax);
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (uint32_t* target : targets.of) {
    if (target != nullptr) atomicMax(target, *block_amax);
  }
}

template <class T>
struct PlainAmax {
  const T* values;
  int64_t count;
  bool vectors;
  AmaxTargets targets;
};

template <class T>
__global__ void __launch_bounds__(quantize_threads) plain_amax_kernel(PlainAmax<T> problem) {
  constexpr int width = 16 / static_cast<int>(sizeof(T));
  constexpr int batch = 4;  // loads in flight
  __shared__ uint32_t block_amax;
  if (threadIdx.x == 0) block_amax = 0;
  __syncthreads();
  const int64_t chunks = problem.vectors ? problem.count / width : 0;
  const auto* vectors = reinterpret_cast<const uint4*>(problem.values);
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  uint32_t amax = 0;
  const auto include = [&amax](float value) {
    const uint32_t magnitude = bits_of(value) & 0x7FFFFFFFu;
    amax = magnitude > amax ? magnitude : amax;
  };
  for (int64_t first = global_thread(); first < chunks; first += batch * threads) {
    uint4 loaded[batch];
    for (int i = 0; i < batch; ++i) {
      const int64_t chunk = first + i * threads;
      loaded[i] = chunk < chunks ? vectors[chunk] : make_uint4(0, 0, 0, 0);
    }
    for (const uint4& chunk : loaded) {
      float values[width];
      unpack(chunk, values);
      for (const float value : values) include(value);
    }
  }
  for (int64_t i = chunks * width + global_thread(); i < problem.count; i += threads) {
    include(to_float(problem.values[i]));
  }
  include_amax(amax, &block_amax, problem.targets);
}

template <class T>
__global__ void __launch_bounds__(quantize_threads) patch_amax_kernel(const __grid_constant__ CastLaunch problem) {
  __shared__ PhiloxBlock signs[2][2];
  __shared__ uint32_t block_amax[2];
  SourcePatch<T> patch(dynamic_shared<uint4>());
  const PatchOrigin source_origin = patch_origin(problem.source, blockIdx.x);
  patch.load(problem.source, source_origin.row, source_origin.col);
  if (threadIdx.x < 2) block_amax[threadIdx.x] = 0;
  draw_signs(problem, source_origin, signs);
  __syncthreads();
#pragma unroll 1
  for (int index = 0; index < problem.count; ++index) {
    const OperandCast& operand = problem.operands[index];
    if (operand.origin != ScaleOrigin::amax_pass) continue;
    const PatchOrigin origin = origin_in(operand, source_origin);
    uint32_t amax = 0;
    for (int group = static_cast<int>(threadIdx.x) / warp_lanes; group < run_groups;
         group += quantize_threads / warp_lanes) {
      const RunPosition at = run_position(group, false);
      if (!__any_sync(all_lanes, origin.row + at.row < operand.rows)) continue;
      const Run run = take_run(operand, patch, origin, at, signs[index]);
      const uint32_t here = amax_bits(run.values);
      amax = here > amax ? here : amax;
    }
    include_amax(amax, &block_amax[index], {{observed_amax(operand), nullptr}});
  }
}

template <class T>
void find_plain_amax(const SourceMatrix& source, const AmaxTargets& targets) {
  const int64_t count = source.rows * source.cols;
  const bool vectors = reinterpret_cast<uintptr_t>(source.data) % 16 == 0;
  const PlainAmax<T> amax{static_cast<const T*>(source.data), count, vectors, targets};
  constexpr int64_t elements_of_block = 16 * 1024;
  const int64_t most = int64_t{8} * device_properties().multiprocessors;
  const int64_t blocks = div_ceil(count, elements_of_block);
  const auto grid = narrow<unsigned>(blocks < most ? blocks : most);
  launch("amax", plain_amax_kernel<T>, {dim3(grid), dim3(quantize_threads)}, amax);
}

template <class T>
void find_amax_of(const CastLaunch& problem) {
  AmaxTargets targets{};
  bool rotated = false;
  int found = 0;
  for (int i = 0; i < problem.count; ++i) {
    const OperandCast& operand = problem.operands[i];
    if (operand.origin != ScaleOrigin::amax_pass) continue;
    targets.of[found++] = reinterpret_cast<uint32_t*>(operand.tensor_scale + 1);
    rotated |= operand.rotation.points != 0;
  }
  if (found == 0) return;
  const auto find_in_patches = [&problem] {
    launch("amax in patches", patch_amax_kernel<T>,
           {dim3(patches_of(problem.source)), dim3(quantize_threads), SourcePatch<T>::bytes}, problem);
  };
  if constexpr (std::is_same_v<T, SavedCode>) {
    find_in_patches();
  } else {
    rotated ? find_in_patches() : find_plain_amax<T>(problem.source, targets);
  }
}

// ---- Post hoc MS-EDEN ----

// A thread rounds four block scales of a row, in the order of the swizzled bytes: a thread block writes two swizzle
// cells. Grid y is the operand.
constexpr int corrected_threads = 256;

__global__ void __launch_bounds__(corrected_threads)
    round_corrected_kernel(const __grid_constant__ CastLaunch problem) {
  const OperandCast& operand = problem.operands[blockIdx.y];
  if (operand.origin != ScaleOrigin::corrected) return;
  const int64_t blocks = operand.inner / run_length;
  const int64_t across = (blocks + 3) / 4;
  const int64_t word = global_thread();
  const int64_t scale_cell = word / swizzle_rows;
  const int in_cell = static_cast<int>(word % swizzle_rows);
  const int64_t row = scale_cell / across * swizzle_rows + in_cell % 4 * 32 + in_cell / 4;
  const int64_t first = scale_cell % across * 4;
  if (scale_cell / across * swizzle_rows >= operand.rows) return;
  const TensorScale tensor = tensor_scale_of(operand.tensor_scale[0], operand.largest);
  uint32_t scales = 0;
  for (int i = 0; i < 4; ++i) {
    if (row >= operand.rows || first + i >= blocks) break;
    scales |= round_corrected_scale(operand, tensor, row, first + i) << (8 * i);
  }
  reinterpret_cast<uint32_t*>(operand.block_scales)[word] = scales;
}

// ---- Formats that are not quantised ----

template <class From, class To>
struct Conversion {
  const From* from;
  To* to;
  int64_t count;
  bool vectors;
};
constexpr int converted_together = 8;

template <class From, class To>
__global__ void convert_kernel(Conversion<From, To> problem) {
  const int64_t first = global_thread() * converted_together;
  const int64_t last = first + converted_together < problem.count ? first + converted_together : problem.count;
  if (!problem.vectors || first + converted_together > problem.count) {
    for (int64_t i = first; i < last; ++i) {
      if constexpr (sizeof(To) == 2) {
        problem.to[i] = bf16_nearest(problem.from[i]);
      } else {
        problem.to[i] = to_float(problem.from[i]);
      }
    }
    return;
  }
  if constexpr (sizeof(To) == 2) {
    const auto* from = reinterpret_cast<const float4*>(problem.from + first);
    const float4 low = from[0];
    const float4 high = from[1];
    const auto pair = [](float a, float b) {
      return bf16_nearest(a).bits | static_cast<uint32_t>(bf16_nearest(b).bits) << 16;
    };
    *reinterpret_cast<uint4*>(problem.to + first) =
        make_uint4(pair(low.x, low.y), pair(low.z, low.w), pair(high.x, high.y), pair(high.z, high.w));
  } else {
    float values[converted_together];
    unpack(*reinterpret_cast<const uint4*>(problem.from + first), values);
    auto* to = reinterpret_cast<float4*>(problem.to + first);
    to[0] = make_float4(values[0], values[1], values[2], values[3]);
    to[1] = make_float4(values[4], values[5], values[6], values[7]);
  }
}

template <class From, class To>
void convert_of(const Tensor& from, const Tensor& to) {
  const bool vectors =
      reinterpret_cast<uintptr_t>(from.data()) % 16 == 0 && reinterpret_cast<uintptr_t>(to.data()) % 16 == 0;
  const Conversion<From, To> problem{from.as<From>(), to.as<To>(), from.elements(), vectors};
  launch("convert", convert_kernel<From, To>, one_thread_each(div_ceil<int64_t>(problem.count, converted_together)),
         problem);
}

}  // namespace

unsigned patches_of(const SourceMatrix& source) {
  return narrow<unsigned>(div_ceil<int64_t>(source.rows, patch_side) * div_ceil<int64_t>(source.cols, patch_side));
}

void clear_tensor_scales(const CastLaunch& problem) {
  launch("clear tensor scales", clear_kernel, {dim3(1), dim3(warp_lanes)}, problem);
}

void find_amax(SourceKind kind, const CastLaunch& problem) {
  switch (kind) {
    case SourceKind::f32: return find_amax_of<float>(problem);
    case SourceKind::bf16: return find_amax_of<BFloat16>(problem);
    case SourceKind::saved: return find_amax_of<SavedCode>(problem);
  }
}

void round_corrected_scales(const CastLaunch& problem) {
  int64_t bytes = 0;
  for (int i = 0; i < problem.count; ++i) {
    const OperandCast& operand = problem.operands[i];
    if (operand.origin != ScaleOrigin::corrected) continue;
    const int64_t own = swizzled_scale_bytes(operand.rows, operand.inner / run_length);
    bytes = own > bytes ? own : bytes;
  }
  LaunchShape shape = one_thread_each(bytes / 4, corrected_threads);
  shape.grid.y = static_cast<unsigned>(problem.count);
  launch("round corrected scales", round_corrected_kernel, shape, problem);
}

void finish_tensor_scales(const CastLaunch& problem) {
  launch("finish tensor scales", finish_kernel, {dim3(1), dim3(warp_lanes)}, problem);
}

void convert(const Tensor& from, const Tensor& to) {
  from.dtype() == DType::bf16 ? convert_of<BFloat16, float>(from, to) : convert_of<float, BFloat16>(from, to);
}

}  // namespace nibble::cuda
