#include "cuda/device_fixture.h"
#include "model/ops/swiglu.h"

namespace nibble {
namespace {

class Swiglu : public DeviceTest {};

TEST_F(Swiglu, HasTheBitsOfTheCpu) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const int64_t features : {1, 7, 64, 72, 255, 2400}) {
      const int64_t tokens = 5;
      TwinTensor gate_up(dtype, {tokens, 2 * features});
      TwinTensor output(dtype, {tokens, features});
      TwinTensor grad_output(dtype, {tokens, features});
      TwinTensor grad_gate_up(dtype, {tokens, 2 * features});
      gate_up.fill_normal(1, 40);  // up to where exponentials vanish and overflow
      grad_output.fill_normal(2);
      for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
        swiglu_forward({gate_up.on(device), output.on(device)});
        swiglu_backward({grad_output.on(device), gate_up.on(device), grad_gate_up.on(device)});
      }
      EXPECT_TRUE(same_bits(output)) << features;
      EXPECT_TRUE(same_bits(grad_gate_up)) << features;
    }
  }
}

}  // namespace
}  // namespace nibble
