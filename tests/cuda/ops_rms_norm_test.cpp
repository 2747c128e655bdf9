#include "cuda/device_fixture.h"
#include "model/ops/norm/rms_norm.h"

namespace nibble {
namespace {

class RmsNorm : public DeviceTest {};

struct Shape {
  int64_t tokens, features;
};
// The rows end in every way that row_sum() distinguishes, and begin where packs, pairs and neither can be read; there
// are more tokens than ranges, and fewer.
const Shape shapes[] = {{1, 1},   {3, 31},   {5, 32},   {9, 47},   {33, 64},  {40, 96},
                        {7, 127}, {70, 136}, {65, 192}, {13, 578}, {100, 17}, {32, 250}};

TEST_F(RmsNorm, ForwardHasTheBitsOfTheCpu) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto [tokens, features] : shapes) {
      TwinTensor input(dtype, {tokens, features});
      TwinTensor weight(dtype, {features});
      TwinTensor output(dtype, {tokens, features});
      TwinTensor inverse_rms(DType::f32, {tokens});
      input.fill_normal(1, 3);
      weight.fill_normal(2);
      for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
        rms_norm_forward({input.on(device), weight.on(device), 1e-5, output.on(device), inverse_rms.on(device)});
      }
      EXPECT_TRUE(same_bits(output)) << tokens << " x " << features;
      EXPECT_TRUE(same_bits(inverse_rms)) << tokens << " x " << features;
    }
  }
}

TEST_F(RmsNorm, BackwardHasTheBitsOfTheCpu) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto [tokens, features] : shapes) {
      TwinTensor grad_output(dtype, {tokens, features});
      TwinTensor input(dtype, {tokens, features});
      TwinTensor weight(dtype, {features});
      TwinTensor inverse_rms(DType::f32, {tokens});
      TwinTensor grad_input(dtype, {tokens, features});
      TwinTensor grad_weight(DType::f32, {features});
      TwinTensor workspace(DType::f32, {token_ranges, features});
      grad_output.fill_normal(1);
      input.fill_normal(2, 3);
      weight.fill_normal(3);
      inverse_rms.fill_normal(4, 0.3F);
      grad_input.fill_normal(5, 0.1F);
      grad_weight.fill_normal(6, 100);  // so that the order of the additions shows
      workspace.fill_normal(7);
      for (const bool continues : {false, true}) {
        for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
          rms_norm_backward({grad_output.on(device), input.on(device), weight.on(device), inverse_rms.on(device),
                             grad_input.on(device), grad_weight.on(device), workspace.on(device), continues});
        }
        EXPECT_TRUE(same_bits(grad_input)) << tokens << " x " << features;
        EXPECT_TRUE(same_bits(grad_weight)) << tokens << " x " << features;
      }
    }
  }
}

TEST_F(RmsNorm, NoTokensChangeNothing) {
  TwinTensor empty(DType::f32, {0, 16});
  TwinTensor none(DType::f32, {0});
  TwinTensor weight(DType::f32, {16});
  TwinTensor grad_weight(DType::f32, {16});
  TwinTensor workspace(DType::f32, {token_ranges, 16});
  grad_weight.fill_normal(1);
  rms_norm_backward(
      {empty.gpu(), empty.gpu(), weight.gpu(), none.gpu(), empty.gpu(), grad_weight.gpu(), workspace.gpu()});
  EXPECT_TRUE(same_bits(grad_weight));
}

}  // namespace
}  // namespace nibble
