#include "cuda/same_numbers.h"
#include "model/ops/loss/divergence.h"

namespace nibble {
namespace {

class DivergenceOnDevice : public DeviceTest {};

// The vocabularies end in every way that row_sum() distinguishes; the rows fill blocks of a kernel and parts of them.
TEST_F(DivergenceOnDevice, HasTheBitsOfTheCpu) {
  for (const int64_t vocab : {1, 2, 31, 32, 63, 64, 97, 1000, 4133}) {
    for (const int64_t tokens : {1, 11}) {
      TwinTensor p(DType::f32, {tokens, vocab});
      TwinTensor q(DType::f32, {tokens, vocab});
      TwinTensor sums(DType::f32, {tokens, 3});
      p.fill_normal(1, 4);
      q.fill_normal(2, 4);
      for (const DeviceKind device : {DeviceKind::cuda, DeviceKind::cpu}) {
        divergence_sums({.p = p.on(device), .q = q.on(device), .sums = sums.on(device)});
      }
      EXPECT_TRUE(same_bits(sums)) << tokens << " " << vocab;
      EXPECT_EQ(divergences(sums.gpu()), divergences(sums.cpu()));
    }
  }
}

}  // namespace
}  // namespace nibble
