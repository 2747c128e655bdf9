#include "cuda/device_fixture.h"
#include "model/ops/norm/head_norm.h"

namespace nibble {
namespace {

class HeadNormOnDevice : public DeviceTest {};

struct Case {
  int64_t tokens;
  HeadShape shape;
};
// Heads are in packs and not, and end in every way that row_sum() distinguishes; there are more tokens than ranges, and
// fewer.
const Case cases[] = {{1, {1, 1, 2}},  {5, {3, 1, 12}},  {40, {4, 2, 32}}, {33, {2, 2, 48}},
                      {7, {8, 2, 64}}, {65, {3, 1, 66}}, {70, {2, 1, 80}}, {3, {2, 1, 128}}};

TEST_F(HeadNormOnDevice, HasTheBitsOfTheCpu) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto& [tokens, shape] : cases) {
      TwinTensor input(dtype, {tokens, shape.features()});
      TwinTensor output(dtype, {tokens, shape.features()});
      TwinTensor gradient(dtype, {tokens, shape.features()});
      TwinTensor query_weight(dtype, {shape.head_dim});
      TwinTensor key_weight(dtype, {shape.head_dim});
      TwinTensor inverse_rms(DType::f32, {tokens, shape.normed_heads()});
      TwinTensor grad_query_weight(DType::f32, {shape.head_dim});
      TwinTensor grad_key_weight(DType::f32, {shape.head_dim});
      TwinTensor workspace(DType::f32, {token_ranges, shape.normed_heads(), shape.head_dim});
      input.fill_normal(1, 3);
      gradient.fill_normal(2);
      query_weight.fill_normal(3);
      key_weight.fill_normal(4);
      grad_query_weight.fill_normal(5, 100);  // so that the order of the additions shows
      grad_key_weight.fill_normal(6, 100);
      workspace.fill_normal(7);
      for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
        head_norm_forward({.shape = shape,
                           .input = input.on(device),
                           .query_weight = query_weight.on(device),
                           .key_weight = key_weight.on(device),
                           .epsilon = 1e-5,
                           .output = output.on(device),
                           .inverse_rms = inverse_rms.on(device)});
        head_norm_backward({.shape = shape,
                            .gradient = gradient.on(device),
                            .input = input.on(device),
                            .query_weight = query_weight.on(device),
                            .key_weight = key_weight.on(device),
                            .inverse_rms = inverse_rms.on(device),
                            .grad_query_weight = grad_query_weight.on(device),
                            .grad_key_weight = grad_key_weight.on(device),
                            .workspace = workspace.on(device)});
      }
      for (const TwinTensor* result : {&output, &inverse_rms, &gradient, &grad_query_weight, &grad_key_weight}) {
        EXPECT_TRUE(same_bits(*result)) << tokens << " tokens, heads of " << shape.head_dim;
      }
    }
  }
}

}  // namespace
}  // namespace nibble
