#include <algorithm>

#include "dist/device/launch.cuh"
#include "quant/format/packs.cuh"
#include "quant/format/round_once.h"
#include "quant/quantize/quantize.h"
#include "quant/tensor/device_operand.cuh"

namespace nibble::cuda {
namespace {

template <class Output>
struct Decoding {
  DeviceOperand operand;
  double rotation;  // the factor that takes the length of the rotation out
  int64_t first_row;
  Output* output;  // [rows, inner]
};

// Returns value * scale, rounded once, as round_once() does it in double. Where the scale is an FP32 number, FP32
// suffices: many GPUs compute slowly in double.
__device__ __forceinline__ void scale_once(float value, double scale, float& output) {
  const float single = static_cast<float>(scale);
  if (static_cast<double>(single) == scale) {
    output = value * single;
  } else {
    round_once(static_cast<double>(value) * scale, output);
  }
}
__device__ __forceinline__ void scale_once(float value, double scale, BFloat16& output) {
  const float single = static_cast<float>(scale);
  const float product = value * single;
  constexpr float smallest = 0x1p-100f;  // from here on the error of the FP32 product is itself an FP32 number
  if (static_cast<double>(single) == scale && (absolute(product) >= smallest || value == 0)) {
    const float error = std::fma(value, single, -product);
    // As in bf16_nearest_once(), the error decides where the product is half way between two BF16 numbers.
    const bool tie = (bits_of(product) & 0xFFFFu) == 0x8000u && error != 0;
    const bool above = (error > 0) == (product > 0);
    output = bf16_nearest(tie ? float_of_bits(bits_of(product) + (above ? 1u : ~0u)) : product);
  } else {
    round_once(static_cast<double>(value) * scale, output);
  }
}

// A thread decodes as many values as fill one access to the output. blockIdx.x is the row.
template <Format format, class Output, int width>
__global__ void decode_kernel(Decoding<Output> problem) {
  DeviceOperand operand = problem.operand;
  operand.format = format;
  const int64_t first = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * width;
  if (first >= operand.inner) return;
  const int64_t row = problem.first_row + blockIdx.x;
  double scale = static_cast<double>(*operand.tensor_scale) * problem.rotation;
  if (operand.outer_scales != nullptr) {
    scale *= static_cast<double>(operand.outer_scales[row * (operand.inner / outer_block) + first / outer_block]);
    operand.outer_scales = nullptr;  // scale_once() below applies the outer scale, so that there is one rounding
  }
  float values[width];
  if constexpr (width == 1) {
    values[0] = value_at(operand, row, first);
  } else {
    decode_codes(operand, row, first, values);
  }
  Pack<Output, width> result;
#pragma unroll
  for (int i = 0; i < width; ++i) scale_once(values[i], scale, result.value[i]);
  store_pack(problem.output + blockIdx.x * operand.inner + first, result);
}

template <class T, class Output>
struct Conversion {
  const T* values;  // values of the first row
  Output* output;   // [rows, inner]
  int64_t rows, inner;
  int64_t stride;  // stride of the transposed values
};

template <class T, class Output, int width>
__global__ void convert_kernel(Conversion<T, Output> problem) {
  const int64_t first = global_thread() * width;
  if (first < problem.rows * problem.inner)
    store_floats(problem.output + first, load_floats<width>(problem.values + first));
}

constexpr int square_side = 32;
constexpr int square_threads = 8;  // threads a column; 32 a row

template <class T, class Output>
__global__ void transpose_kernel(Conversion<T, Output> problem) {
  __shared__ float values[square_side][square_side + 1];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * square_side;
  const int64_t position = static_cast<int64_t>(blockIdx.y) * square_side;
#pragma unroll
  for (unsigned i = threadIdx.y; i < square_side; i += square_threads) {
    if (position + i < problem.inner && row + threadIdx.x < problem.rows) {
      values[i][threadIdx.x] = to_float(problem.values[(position + i) * problem.stride + row + threadIdx.x]);
    }
  }
  __syncthreads();
#pragma unroll
  for (unsigned i = threadIdx.y; i < square_side; i += square_threads) {
    if (row + i < problem.rows && position + threadIdx.x < problem.inner) {
      store_floats<1>(problem.output + (row + i) * problem.inner + position + threadIdx.x, {values[threadIdx.x][i]});
    }
  }
}

template <class T, class Output>
void convert(const QuantizedTensor& operand, int64_t first_row, int64_t rows, Output* output) {
  Conversion<T, Output> problem{operand.values.as<T>(), output, rows, operand.inner, operand.rows};
  problem.values += operand.transposed ? first_row : first_row * operand.inner;
  if (operand.transposed) {
    const LaunchShape shape{dim3(narrow<unsigned>(div_ceil<int64_t>(rows, square_side)),
                                 narrow<unsigned>(div_ceil<int64_t>(operand.inner, square_side))),
                            dim3(square_side, square_threads)};
    launch("dequantize", transpose_kernel<T, Output>, shape, problem);
    return;
  }
  constexpr int count = std::min(widest_pack<T>, widest_pack<Output>);
  const bool fits = in_packs(count, sizeof(T), rows * operand.inner, {problem.values}) &&
                    in_packs(count, sizeof(Output), rows * operand.inner, {output});
  with_pack<count>(fits, [&](auto width) {
    launch("dequantize", convert_kernel<T, Output, width()>,
           one_thread_each(div_ceil<int64_t>(rows * operand.inner, width())), problem);
  });
}

template <Format format, class Output>
void decode(const Decoding<Output>& problem, int64_t rows) {
  constexpr int count = widest_pack<Output>;
  const int64_t inner = problem.operand.inner;
  with_pack<count>(in_packs(count, sizeof(Output), inner, {problem.output}), [&](auto width) {
    const int64_t packs = inner / width();
    const int64_t threads = std::min<int64_t>(256, round_up<int64_t>(packs, warp_lanes));
    launch("dequantize", decode_kernel<format, Output, width()>,
           {dim3(narrow<unsigned>(rows), narrow<unsigned>(div_ceil(packs, threads))), dim3(narrow<unsigned>(threads))},
           problem);
  });
}

template <class Output>
void dequantize_to(const QuantizedTensor& operand, int64_t first_row, int64_t rows, Output* output) {
  const DeviceOperand checked = device_operand(operand);
  if (operand.format == Format::f32) return convert<float>(operand, first_row, rows, output);
  if (operand.format == Format::bf16) return convert<BFloat16>(operand, first_row, rows, output);
  const Decoding<Output> problem{checked, inverse_root_of_power(operand.rotation_bits), first_row, output};
  switch (operand.format) {
    case Format::nvfp4: return decode<Format::nvfp4>(problem, rows);
    case Format::mxfp4: return decode<Format::mxfp4>(problem, rows);
    case Format::mxfp8_e4m3: return decode<Format::mxfp8_e4m3>(problem, rows);
    case Format::mxfp8_e5m2: return decode<Format::mxfp8_e5m2>(problem, rows);
    case Format::fp8_e4m3: return decode<Format::fp8_e4m3>(problem, rows);
    case Format::fp8_e5m2: return decode<Format::fp8_e5m2>(problem, rows);
    case Format::f32:
    case Format::bf16: break;
  }
}

}  // namespace

void dequantize_rows(const QuantizedTensor& operand, int64_t first_row, const Tensor& output) {
  const int64_t rows = operand.inner == 0 ? 0 : output.elements() / operand.inner;
  NIBBLE_CHECK(output.elements() == rows * operand.inner && first_row >= 0 && first_row + rows <= operand.rows,
               "output of another shape");
  if (rows == 0) return;
  if (output.dtype() == DType::f32) {
    dequantize_to(operand, first_row, rows, output.as<float>());
  } else {
    dequantize_to(operand, first_row, rows, output.as<BFloat16>());
  }
}

}  // namespace nibble::cuda
