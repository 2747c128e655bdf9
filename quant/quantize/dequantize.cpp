#include "dist/base/error.h"
#include "dist/base/vectorize.h"
#include "dist/device/dispatch.h"
#include "dist/device/thread_pool.h"
#include "quant/format/codec.h"
#include "quant/format/round_once.h"
#include "quant/quantize/cpu/decode.h"
#include "quant/quantize/quantize.h"

namespace nibble {
namespace cpu {
namespace {

// A code times its block scale is exact in FP32, and that times an FP32 scale is exact in double.
template <class Output>
NIBBLE_INLINE void round_scaled(const float* values, double scale, size_t count, Output* output) {
  for (size_t i = 0; i < count; ++i) round_once(static_cast<double>(values[i]) * scale, output[i]);
}
NIBBLE_VECTORIZE void round_values(const float* values, double scale, size_t count, float* output) {
  round_scaled(values, scale, count, output);
}
NIBBLE_VECTORIZE void round_values(const float* values, double scale, size_t count, BFloat16* output) {
  round_scaled(values, scale, count, output);
}

constexpr int64_t chunk = 128;  // the elements that share an outer scale

template <class Output>
void decode_row(const QuantizedTensor& operand, int64_t row, Output* output) {
  const double rotation = inverse_root_of_power(operand.rotation_bits);
  const double tensor_scale = static_cast<double>(operand.tensor_scale.as<float>()[0]) * rotation;
  for (int64_t first = 0; first < operand.inner; first += chunk) {
    const int64_t count = operand.inner - first < chunk ? operand.inner - first : chunk;
    alignas(64) float values[chunk];
    decode_chunk(operand, row, first, static_cast<int>(count), values);
    const double outer =
        operand.outer_scales.empty()
            ? 1.0
            : static_cast<double>(operand.outer_scales.as<float>()[row * (operand.inner / chunk) + first / chunk]);
    round_values(values, tensor_scale * outer, static_cast<size_t>(count), output + first);
  }
}

template <class From, class Output>
void decode_plain_row(const QuantizedTensor& operand, int64_t row, Output* output) {
  const From* values = operand.values.as<From>();
  for (int64_t k = 0; k < operand.inner; ++k) {
    const float value = to_float(values[operand.transposed ? k * operand.rows + row : row * operand.inner + k]);
    if constexpr (sizeof(Output) == sizeof(float)) {
      output[k] = value;
    } else {
      output[k] = bf16_nearest(value);
    }
  }
}

template <class Output>
void dequantize_to(const QuantizedTensor& operand, int64_t first_row, int64_t rows, Output* output) {
  parallel_for(static_cast<size_t>(rows), 16, [&](size_t begin, size_t end) {
    for (auto index = static_cast<int64_t>(begin); index < static_cast<int64_t>(end); ++index) {
      const int64_t row = first_row + index;
      Output* to = output + index * operand.inner;
      switch (operand.format) {
        case Format::bf16: decode_plain_row<BFloat16>(operand, row, to); break;
        case Format::f32: decode_plain_row<float>(operand, row, to); break;
        default: decode_row(operand, row, to); break;
      }
    }
  });
}

}  // namespace

void dequantize_rows(const QuantizedTensor& operand, int64_t first_row, const Tensor& output) {
  const int64_t rows = operand.inner == 0 ? 0 : output.elements() / operand.inner;
  NIBBLE_CHECK(output.elements() == rows * operand.inner && first_row >= 0 && first_row + rows <= operand.rows,
               "output of another shape");
  if (output.dtype() == DType::f32) {
    dequantize_to(operand, first_row, rows, output.as<float>());
  } else {
    dequantize_to(operand, first_row, rows, output.as<BFloat16>());
  }
}

}  // namespace cpu

void dequantize_rows(const QuantizedTensor& operand, int64_t first_row, const Tensor& output) {
  NIBBLE_DISPATCH(output.device(), dequantize_rows, operand, first_row, output);
}

void dequantize(const QuantizedTensor& operand, const Tensor& output) {
  NIBBLE_CHECK(output.elements() == operand.rows * operand.inner, "output of another shape");
  dequantize_rows(operand, 0, output);
}

}  // namespace nibble
