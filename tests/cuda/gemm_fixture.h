// Operands of GEMMs on the CPU and, with the same bytes and swizzled scales, on the device.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cuda/device_fixture.h"
#include "quant/format/swizzle.h"
#include "quant/gemm/gemm.h"
#include "quant/quantize/quantize.h"

namespace nibble {

constexpr Format all_formats[] = {Format::f32,        Format::bf16,       Format::nvfp4,    Format::mxfp4,
                                  Format::mxfp8_e4m3, Format::mxfp8_e5m2, Format::fp8_e4m3, Format::fp8_e5m2};

struct OperandShape {
  Format format = Format::bf16;
  int64_t rows = 0, inner = 0;
  bool transposed = false;  // only in formats that are not quantised
  bool outer_scales = false;
};

class TwinOperand {
 public:
  // Makes an operand of normal deviates; the source is f32 for f32, else bf16.
  TwinOperand(const OperandShape& shape, unsigned seed, float size = 1) : shape_(shape) {
    const DType dtype = shape.format == Format::f32 ? DType::f32 : DType::bf16;
    source_.emplace(dtype, std::initializer_list<int64_t>{shape.transposed ? shape.inner : shape.rows,
                                                          shape.transposed ? shape.rows : shape.inner});
    source_->fill_normal(seed, size);
    OperandSpec spec;
    spec.format = shape.format;
    spec.outer = shape.outer_scales ? OuterScale::row_128 : OuterScale::tensor;
    if (!is_quantized(shape.format)) {
      cpu_.format = shape.format;
      cpu_.rows = shape.rows;
      cpu_.inner = shape.inner;
      cpu_.transposed = shape.transposed;
      gpu_ = cpu_;
      cpu_.values = source_->cpu();
      gpu_.values = source_->gpu();
      return;
    }
    for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
      Arena& arena = *arenas_.emplace_back(std::make_unique<Arena>("operand", device));
      allocate_operand(arena, spec, dtype, shape.rows, shape.inner);
      arena.commit();
      const QuantizedTensor storage = allocate_operand(arena, spec, dtype, shape.rows, shape.inner);
      (device == DeviceKind::cpu ? cpu_ : gpu_) = storage;
    }
    QuantizeProblem problem;
    problem.source = source_->cpu();
    problem.spec = spec;
    cpu_ = quantize(problem, cpu_);
    upload();
  }

  const QuantizedTensor& cpu() const { return cpu_; }
  const QuantizedTensor& gpu() const { return gpu_; }
  // The operand on the CPU, for changes before upload().
  QuantizedTensor& cpu() { return cpu_; }

  // Copies the CPU's operand to the device.
  void upload() {
    copy(cpu_.values, gpu_.values);
    gpu_.rotation_bits = cpu_.rotation_bits;
    if (!is_quantized(shape_.format)) return;
    copy(cpu_.tensor_scale, gpu_.tensor_scale);
    if (!cpu_.outer_scales.empty()) copy(cpu_.outer_scales, gpu_.outer_scales);
    const int block = traits_of(shape_.format).block;
    if (block == 0) return;
    const int64_t blocks = shape_.inner / block;
    std::vector<uint8_t> swizzled(gpu_.block_scales.bytes());
    for (int64_t row = 0; row < shape_.rows; ++row) {
      for (int64_t i = 0; i < blocks; ++i) {
        swizzled[static_cast<size_t>(swizzled_scale_offset(row, i, blocks))] =
            cpu_.block_scales.as<uint8_t>()[row * blocks + i];
      }
    }
    copy(tensor_of(std::span<uint8_t>(swizzled), {gpu_.block_scales.size(0), gpu_.block_scales.size(1)}),
         gpu_.block_scales);
  }

 private:
  OperandShape shape_;
  std::optional<TwinTensor> source_;
  std::vector<std::unique_ptr<Arena>> arenas_;
  QuantizedTensor cpu_, gpu_;
};

// Scratch memory of a device.
class DeviceBytes {
 public:
  explicit DeviceBytes(size_t bytes) : arena_("scratch", DeviceKind::cuda) {
    if (bytes == 0) return;
    const auto count = static_cast<int64_t>(bytes);
    allocate_tensor(arena_, DType::u8, {count});
    arena_.commit();
    tensor_ = allocate_tensor(arena_, DType::u8, {count});
  }
  const Tensor& tensor() const { return tensor_; }

 private:
  Arena arena_;
  Tensor tensor_;
};

inline std::string name_of_pair(Format a, Format b) {
  return std::string(name_of(a)) + " x " + std::string(name_of(b));
}

inline GemmShape shape_of(const TwinOperand& a, const TwinOperand& b) {
  return {.a = a.cpu().format,
          .b = b.cpu().format,
          .m = a.cpu().rows,
          .n = b.cpu().rows,
          .k = a.cpu().inner,
          .outer_scales = !a.cpu().outer_scales.empty() || !b.cpu().outer_scales.empty()};
}

}  // namespace nibble
