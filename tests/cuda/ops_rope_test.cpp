#include "cuda/device_fixture.h"
#include "model/ops/rope.h"

namespace nibble {
namespace {

class RopeOnDevice : public DeviceTest {};

struct Shape {
  int64_t sequences, length, query_heads, kv_heads, head_dim;
};
// The halves of heads are in packs and not; heads are fewer and more than threads share.
const Shape shapes[] = {{1, 1, 1, 1, 2}, {2, 5, 3, 1, 12}, {3, 7, 8, 2, 16}, {1, 9, 5, 5, 64}, {2, 3, 1, 1, 128}};

TEST_F(RopeOnDevice, HasTheBitsOfTheCpuBothWays) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Shape& shape : shapes) {
      const int64_t width = (shape.query_heads + 2 * shape.kv_heads) * shape.head_dim;
      TwinTensor qkv(dtype, {shape.sequences * shape.length, width});
      TwinTensor table(DType::f32, {shape.length + 2, shape.head_dim / 2, 2});
      qkv.fill_normal(1);
      for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) fill_rope_table({}, table.on(device));
      EXPECT_TRUE(same_bits(table));
      for (const bool inverse : {false, true}) {
        for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
          rope({.qkv = qkv.on(device),
                .table = table.on(device),
                .sequence_length = shape.length,
                .query_heads = shape.query_heads,
                .kv_heads = shape.kv_heads,
                .head_dim = shape.head_dim,
                .inverse = inverse});
        }
        EXPECT_TRUE(same_bits(qkv)) << "heads of " << shape.head_dim << ", inverse " << inverse;
      }
    }
  }
}

}  // namespace
}  // namespace nibble
