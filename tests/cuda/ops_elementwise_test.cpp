#include "cuda/device_fixture.h"
#include "model/ops/elementwise.h"

namespace nibble {
namespace {

class Elementwise : public DeviceTest {};

TEST_F(Elementwise, AddHasTheBitsOfTheCpu) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const int64_t count : {1, 7, 255, 256, 1000, 4099}) {
      TwinTensor a(dtype, {count});
      TwinTensor b(dtype, {count});
      TwinTensor sum(dtype, {count});
      a.fill_normal(1);
      b.fill_normal(2, 1e-3F);
      for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda})
        add(a.on(device), b.on(device), sum.on(device));
      EXPECT_TRUE(same_bits(sum));
      for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) add(a.on(device), b.on(device), a.on(device));
      EXPECT_TRUE(same_bits(a));
      EXPECT_TRUE(same_bits(sum.cpu(), a.gpu()));
      fill_zero(sum.gpu());
      fill_zero(sum.cpu());
      EXPECT_TRUE(same_bits(sum));
    }
  }
}

TEST_F(Elementwise, AddTakesTensorsThatBeginAnywhere) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    TwinTensor a(dtype, {300});
    a.fill_normal(1);
    for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
      add(a.on(device).slice(0, 100), a.on(device).slice(101, 201), a.on(device).slice(101, 201));
    }
    EXPECT_TRUE(same_bits(a));
  }
}

}  // namespace
}  // namespace nibble
