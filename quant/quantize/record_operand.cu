// Implements source_was_finite(), record_operand() and count_non_finite() of quant/quantize/quantize.h on a GPU.
#include <algorithm>

#include "dist/device/arena.h"
#include "dist/device/launch.cuh"
#include "quant/format/packs.cuh"
#include "quant/quantize/quantize.h"
#include "quant/quantize/quantize_problem.h"
#include "quant/tensor/device_operand.cuh"
#include "quant/tensor/tensor_copy.h"

namespace nibble::cuda {
namespace {

template <class T>
struct Elements {
  const T* values;
  int64_t count;
};
template <int width, class T>
__device__ __forceinline__ Pack<float, width> load_elements(const Elements<T>& elements, int64_t first) {
  return load_floats<width>(elements.values + first);
}

// The values of an nvfp4 operand without outer scales, rounded to FP32 as dequantize() does.
struct SavedElements {
  DeviceOperand operand;
  int64_t count;
};
template <int width>
__device__ __forceinline__ Pack<float, width> load_elements(const SavedElements& elements, int64_t first) {
  const int64_t row = first / elements.operand.inner;
  Pack<float, width> values;
  decode_codes(elements.operand, row, first - row * elements.operand.inner, values.value);
#pragma unroll
  for (float& value : values.value) value *= *elements.operand.tensor_scale;
  return values;
}

constexpr int block_threads = 512;

// The blocks of the grid share the elements. Returns how many of this block's elements are not finite; all its threads
// get the same number.
template <int width, class Source>
__device__ int64_t non_finite_of_block(const Source& elements) {
  __shared__ int64_t of_warp[block_threads / warp_lanes];
  int64_t found = 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * block_threads * width;
#pragma unroll 4
  for (int64_t i = global_thread() * width; i < elements.count; i += step) {
    const auto values = load_elements<width>(elements, i);
#pragma unroll
    for (int k = 0; k < width; ++k) found += is_finite(values.value[k]) ? 0 : 1;
  }
#pragma unroll
  for (int distance = warp_lanes / 2; distance > 0; distance /= 2) {
    found += __shfl_xor_sync(all_lanes, found, distance);
  }
  if (threadIdx.x % warp_lanes == 0) of_warp[threadIdx.x / warp_lanes] = found;
  __syncthreads();
  found = 0;
  for (const int64_t part : of_warp) found += part;
  return found;
}

template <class Source>
struct Recording {
  Source source;
  const float* tensor_scale;  // [2]
  int64_t* non_finite;
  float* observed_amax;  // null: not asked for
};

// Runs as one block, which has next to nothing to do where everything is finite. Where something is not, the step is
// lost anyway.
template <class Source, int width>
__global__ void __launch_bounds__(block_threads) record_kernel(Recording<Source> problem) {
  const float amax = problem.tensor_scale[1];
  if (!is_finite(amax)) {
    const int64_t found = non_finite_of_block<width>(problem.source);
    if (threadIdx.x == 0) *problem.non_finite += found > 1 ? found : 1;
  }
  float* const observed = problem.observed_amax;
  if (observed != nullptr && threadIdx.x == 0 && *observed < amax) *observed = amax;
}

template <int width, class Source>
void record_source(const Source& source, const QuantizedTensor& operand, const OperandObservations& observations) {
  const Recording<Source> recording{
      source, operand.tensor_scale.as<float>(), observations.non_finite.as<int64_t>(),
      observations.observed_amax.empty() ? nullptr : observations.observed_amax.as<float>()};
  launch("record operand", record_kernel<Source, width>, {dim3(1), dim3(block_threads)}, recording);
}

template <class T>
struct Count {
  Elements<T> elements;
  unsigned long long* total;
};
template <class T, int width>
__global__ void __launch_bounds__(block_threads) count_kernel(Count<T> problem) {
  const int64_t found = non_finite_of_block<width>(problem.elements);
  if (threadIdx.x == 0 && found > 0) atomicAdd(problem.total, static_cast<unsigned long long>(found));
}

// Calls function(elements, width) with the elements of a tensor and the width of one access.
template <class Function>
void with_elements(const Tensor& tensor, Function&& function) {
  const auto call = [&]<class T>(T) {
    const Elements<T> elements{tensor.as<T>(), tensor.elements()};
    with_pack<widest_pack<T>>(in_packs(widest_pack<T>, sizeof(T), elements.count, {elements.values}),
                              [&](auto width) { function(elements, width); });
  };
  tensor.dtype() == DType::f32 ? call(float{}) : call(BFloat16{});
}

}  // namespace

bool source_was_finite(const QuantizedTensor& operand) {
  return !is_quantized(operand.format) || is_finite(HostCopy(operand.tensor_scale).as<float>()[1]);
}

void record_operand(const QuantizeProblem& problem, const QuantizedTensor& operand,
                    const OperandObservations& observations) {
  if (!is_quantized(operand.format)) return;
  with_elements(problem.source, [&]<class T>(const Elements<T>& source, auto width) {
    record_source<width()>(source, operand, observations);
  });
}

void record_requantized(const QuantizeProblem& problem, const QuantizedTensor& saved, const QuantizedTensor& operand,
                        const OperandObservations& observations) {
  if (!decodes_on_load(problem, saved)) return cuda::record_operand(problem, operand, observations);
  record_source<8>(SavedElements{device_operand(saved), saved.rows * saved.inner}, operand, observations);
}

int64_t count_non_finite(const Tensor& tensor) {
  Arena arena("count of elements that are not finite", DeviceKind::cuda);
  const Tensor total = planned(arena, [&] { return allocate_tensor(arena, DType::i64, {1}); });
  with_elements(tensor, [&]<class T>(const Elements<T>& elements, auto width) {
    constexpr int64_t most_blocks = 2048;
    const int64_t blocks = div_ceil<int64_t>(elements.count, int64_t{block_threads} * width());
    launch("count_non_finite", count_kernel<T, width()>,
           {dim3(narrow<unsigned>(std::min(blocks, most_blocks))), dim3(block_threads)},
           Count<T>{elements, static_cast<unsigned long long*>(total.data())});
  });
  return HostCopy(total).as<int64_t>()[0];
}

}  // namespace nibble::cuda
