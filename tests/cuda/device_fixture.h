// Tensors on the GPU (or the simulator's) and on the CPU with the same contents, and comparison of their bits.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "dist/device/arena.h"
#include "dist/device/cuda_device.h"
#include "quant/format/codec.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {

// Call first in every test program: SetUpTestSuite() of the fixture below does.
inline void use_first_gpu() {
  cuda::use_device(0);
}

class DeviceTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { use_first_gpu(); }
};

// Two tensors of the same shape, one on the CPU and one on the device; both zero at first.
class TwinTensor {
 public:
  TwinTensor(DType dtype, std::initializer_list<int64_t> shape) {
    for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
      Arena& arena = *arenas_.emplace_back(std::make_unique<Arena>("test", device));
      allocate_tensor(arena, dtype, shape);
      arena.commit();
      tensors_.push_back(allocate_tensor(arena, dtype, shape));
    }
  }
  const Tensor& cpu() const { return tensors_[0]; }
  const Tensor& gpu() const { return tensors_[1]; }
  const Tensor& on(DeviceKind device) const { return device == DeviceKind::cpu ? cpu() : gpu(); }

  // Copies the CPU's tensor to the device.
  TwinTensor& upload() {
    copy(cpu(), gpu());
    return *this;
  }
  // Fills both with normal deviates times `scale`, f32 or bf16.
  TwinTensor& fill_normal(unsigned seed, float scale = 1) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0, scale);
    for (int64_t i = 0; i < cpu().elements(); ++i) {
      if (cpu().dtype() == DType::f32) {
        cpu().as<float>()[i] = normal(generator);
      } else {
        cpu().as<BFloat16>()[i] = bf16_nearest(normal(generator));
      }
    }
    return upload();
  }

 private:
  std::vector<std::unique_ptr<Arena>> arenas_;
  std::vector<Tensor> tensors_;
};

// Compares the bytes of both; the message names the first element that differs.
inline ::testing::AssertionResult same_bits(const Tensor& expected, const Tensor& actual) {
  const HostCopy a(expected);
  const HostCopy b(actual);
  if (a.tensor().bytes() != b.tensor().bytes()) return ::testing::AssertionFailure() << "sizes differ";
  const size_t width = size_of(expected.dtype());
  const auto* left = static_cast<const std::byte*>(a.tensor().data());
  const auto* right = static_cast<const std::byte*>(b.tensor().data());
  for (size_t i = 0; i < a.tensor().bytes(); i += width) {
    if (std::memcmp(left + i, right + i, width) == 0) continue;
    uint64_t expected_bits = 0;
    uint64_t actual_bits = 0;
    std::memcpy(&expected_bits, left + i, width);
    std::memcpy(&actual_bits, right + i, width);
    return ::testing::AssertionFailure() << "element " << i / width << " of " << expected.elements()
                                         << ": expected bits " << std::hex << expected_bits << ", got " << actual_bits;
  }
  return ::testing::AssertionSuccess();
}
inline ::testing::AssertionResult same_bits(const TwinTensor& twin) {
  return same_bits(twin.cpu(), twin.gpu());
}

}  // namespace nibble
