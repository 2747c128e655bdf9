#include "model/ops/bias.h"

#include "cuda/device_fixture.h"

namespace nibble {
namespace {

class BiasOnDevice : public DeviceTest {};

struct Shape {
  int64_t tokens, features;
};
// Rows are in packs, in pairs and in neither; there are more tokens than ranges, and fewer.
const Shape shapes[] = {{1, 1}, {3, 31}, {40, 96}, {70, 134}, {65, 192}, {100, 17}, {32, 250}};

TEST_F(BiasOnDevice, HasTheBitsOfTheCpu) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto [tokens, features] : shapes) {
      TwinTensor rows(dtype, {tokens, features});
      TwinTensor bias(dtype, {features});
      TwinTensor gradient(DType::f32, {features});
      TwinTensor workspace(DType::f32, {token_ranges, features});
      rows.fill_normal(1, 3);
      bias.fill_normal(2);
      gradient.fill_normal(3, 100);  // so that the order of the additions shows
      workspace.fill_normal(4);
      for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
        add_bias(rows.on(device), bias.on(device));
        bias_backward({rows.on(device), gradient.on(device), workspace.on(device)});
      }
      EXPECT_TRUE(same_bits(rows)) << tokens << " x " << features;
      EXPECT_TRUE(same_bits(gradient)) << tokens << " x " << features;
    }
  }
}

}  // namespace
}  // namespace nibble
