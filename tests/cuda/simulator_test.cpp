// Tests the simulator itself, or, on a GPU, that the simulator's rules are CUDA's.
#include "cuda/device_fixture.h"

namespace nibble {
namespace {

class Device : public DeviceTest {};

TEST_F(Device, CopiesKeepOrder) {
  TwinTensor values(DType::f32, {1000});
  values.fill_normal(3);
  EXPECT_TRUE(same_bits(values));
  zero_bytes(values.gpu().data(), DeviceKind::cuda, values.gpu().bytes());
  EXPECT_FALSE(same_bits(values));
}

TEST_F(Device, MemoryOfTheDeviceIsNotTheHosts) {
  TwinTensor values(DType::f32, {4});
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        volatile float* place = values.gpu().as<float>();
        *place = 1;
      },
      "");
}

}  // namespace
}  // namespace nibble
