// One quantisation on the CPU, its operand in rows, and the same one on the device, in memory that was poisoned before.
#pragma once

#include "cuda/device_fixture.h"
#include "quant/format/swizzle.h"
#include "quant/quantize/quantize.h"
#include "quant/tensor/host_operand.h"
#include "tests/quant/every_spec.h"

namespace nibble::test {

inline NoiseStream noise_stream(Purpose purpose = Purpose::grad_weight_dy) {
  return {.seed = 0x123456789ABCDEFu, .step = 7, .micro_batch = 3, .tensor_id = 41, .purpose = purpose};
}
inline SignStream sign_stream() {
  return {.stream = noise_stream(Purpose::hadamard_signs), .gemm = 2};
}
inline QuantizeProblem problem_of(const OperandSpec& spec, bool transpose = false, float amax = 0) {
  QuantizeProblem problem;
  problem.transpose = transpose;
  problem.spec = spec;
  problem.noise = noise_stream();
  problem.signs = sign_stream();
  problem.amax = amax;
  return problem;
}

// A matrix in both dtypes, on the CPU and on the device.
class TwinMatrix {
 public:
  explicit TwinMatrix(const Matrix& matrix)
      : f32_(DType::f32, {matrix.rows, matrix.cols}), bf16_(DType::bf16, {matrix.rows, matrix.cols}) {
    for (size_t i = 0; i < matrix.values.size(); ++i) {
      f32_.cpu().as<float>()[i] = matrix.values[i];
      bf16_.cpu().as<BFloat16>()[i] = matrix.halves[i];
    }
    f32_.upload();
    bf16_.upload();
  }
  const Tensor& on(DeviceKind device, DType dtype) const { return (dtype == DType::f32 ? f32_ : bf16_).on(device); }

 private:
  TwinTensor f32_, bf16_;
};

inline void fill_bytes(const Tensor& tensor, uint8_t value) {
  if (tensor.empty()) return;
  std::vector<uint8_t> bytes(tensor.bytes(), value);
  copy_bytes({tensor.data(), tensor.device(), bytes.data(), DeviceKind::cpu, bytes.size()});
}

// The memory of an operand of `problem`, whose source is set, and its scratch, full of NaN.
class OperandMemory {
 public:
  explicit OperandMemory(QuantizeProblem& problem) : arena_(std::make_unique<Arena>("test", problem.source.device())) {
    const int64_t rows = problem.transpose ? problem.source.cols() : problem.source.size(0);
    const int64_t inner = problem.transpose ? problem.source.size(0) : problem.source.cols();
    for (const bool measuring : {true, false}) {
      storage_ = allocate_operand(*arena_, problem.spec, problem.source.dtype(), rows, inner);
      const int64_t scratch = quantize_scratch_floats(problem.spec, rows, inner);
      if (scratch > 0) problem.scratch = allocate_tensor(*arena_, DType::f32, {scratch});
      if (measuring) arena_->commit();
    }
    for (const Tensor& part :
         {storage_.values, storage_.block_scales, storage_.outer_scales, storage_.tensor_scale, problem.scratch}) {
      fill_bytes(part, 0xFF);
    }
  }
  const QuantizedTensor& storage() const { return storage_; }

 private:
  std::unique_ptr<Arena> arena_;
  QuantizedTensor storage_;
};

// Compares two numbers; NaN equals NaN, because devices make different ones.
inline bool same_or_nan(float a, float b) {
  return bits_of(a) == bits_of(b) || (is_nan(a) && is_nan(b));
}

inline ::testing::AssertionResult same_tensor_scale(const QuantizedTensor& cpu, const QuantizedTensor& gpu) {
  const HostCopy copied(gpu.tensor_scale);
  const float* expected = cpu.tensor_scale.as<float>();
  const std::span<const float> actual = copied.as<float>();
  for (size_t i = 0; i < 2; ++i) {
    if (same_or_nan(expected[i], actual[i])) continue;
    return ::testing::AssertionFailure() << "tensor_scale[" << i << "] is " << actual[i] << ", not " << expected[i];
  }
  return ::testing::AssertionSuccess();
}

// Checks that the bytes of swizzled scales that belong to no block are zero.
inline ::testing::AssertionResult padding_is_zero(const QuantizedTensor& gpu) {
  if (gpu.layout != OperandLayout::swizzled) return ::testing::AssertionSuccess();
  const HostCopy scales(gpu.block_scales);
  std::vector<uint8_t> bytes(scales.as<uint8_t>().begin(), scales.as<uint8_t>().end());
  const int64_t blocks = gpu.inner / traits_of(gpu.format).block;
  for (int64_t row = 0; row < gpu.rows; ++row) {
    for (int64_t block = 0; block < blocks; ++block) {
      bytes[static_cast<size_t>(swizzled_scale_offset(row, block, blocks))] = 0;
    }
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != 0) return ::testing::AssertionFailure() << "byte " << i << " of the padding is " << +bytes[i];
  }
  return ::testing::AssertionSuccess();
}

inline ::testing::AssertionResult same_operand(const QuantizedTensor& cpu, const QuantizedTensor& gpu) {
  const HostOperand copied(gpu);
  const QuantizedTensor& actual = copied.operand();
  if (cpu.format != actual.format || cpu.rows != actual.rows || cpu.inner != actual.inner ||
      cpu.transposed != actual.transposed || cpu.rotation_bits != actual.rotation_bits) {
    return ::testing::AssertionFailure() << "another operand";
  }
  const std::pair<const Tensor&, const Tensor&> parts[] = {
      {cpu.values, actual.values}, {cpu.block_scales, actual.block_scales}, {cpu.outer_scales, actual.outer_scales}};
  const char* names[] = {"values: ", "block scales: ", "outer scales: "};
  for (size_t i = 0; i < 3; ++i) {
    if (parts[i].first.empty() && parts[i].second.empty()) continue;
    const auto same = same_bits(parts[i].first, parts[i].second);
    if (!same) return ::testing::AssertionFailure() << names[i] << same.message();
  }
  if (cpu.tensor_scale.empty()) return ::testing::AssertionSuccess();
  if (const auto same = same_tensor_scale(cpu, gpu); !same) return same;
  return padding_is_zero(gpu);
}

// One problem on both devices.
struct Twins {
  Twins(QuantizeProblem problem, const TwinMatrix& matrix, DType dtype)
      : cpu_problem(at(problem, matrix, DeviceKind::cpu, dtype)),
        gpu_problem(at(problem, matrix, DeviceKind::cuda, dtype)),
        cpu_memory(cpu_problem),
        gpu_memory(gpu_problem) {}
  ::testing::AssertionResult quantize_both() {
    cpu = quantize(cpu_problem, cpu_memory.storage());
    gpu = quantize(gpu_problem, gpu_memory.storage());
    return same_operand(cpu, gpu);
  }

  QuantizeProblem cpu_problem, gpu_problem;
  OperandMemory cpu_memory, gpu_memory;
  QuantizedTensor cpu, gpu;

 private:
  static QuantizeProblem at(QuantizeProblem problem, const TwinMatrix& matrix, DeviceKind device, DType dtype) {
    problem.source = matrix.on(device, dtype);
    return problem;
  }
};

inline std::string name_of_case(const QuantizeProblem& problem, DType dtype) {
  return describe(problem.spec) + " of " + std::string(name_of(dtype)) + (problem.transpose ? " transposed" : "");
}

inline ::testing::AssertionResult same_on_both(const QuantizeProblem& problem, const TwinMatrix& matrix, DType dtype) {
  Twins twins(problem, matrix, dtype);
  auto same = twins.quantize_both();
  if (same) return same;
  return ::testing::AssertionFailure() << name_of_case(problem, dtype) << ": " << same.message();
}

}  // namespace nibble::test
