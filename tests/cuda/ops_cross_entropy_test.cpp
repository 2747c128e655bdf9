#include <limits>

#include "cuda/same_numbers.h"
#include "model/ops/loss/cross_entropy.h"

namespace nibble {
namespace {

class CrossEntropyOnDevice : public DeviceTest {};

// Holds logits and targets; every call overwrites the logits.
struct Case {
  Case(int64_t tokens, int64_t vocab)
      : logits(DType::f32, {tokens, vocab}), targets(DType::i32, {tokens}), losses(DType::f32, {tokens}) {
    refill();
    for (int64_t i = 0; i < tokens; ++i) targets.cpu().as<int32_t>()[i] = static_cast<int32_t>(i * 7919 % vocab);
    targets.upload();
  }
  void refill() { logits.fill_normal(1, 4); }
  float& logit(int64_t token, int64_t word) { return logits.cpu().as<float>()[token * logits.cpu().cols() + word]; }
  // `gradient` is null where none is wanted.
  void run(const TwinTensor* gradient) {
    for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
      cross_entropy({logits.on(device), targets.on(device), gradient == nullptr ? Tensor() : gradient->on(device), 0.3F,
                     losses.on(device)});
    }
  }

  TwinTensor logits, targets, losses;
};

// The vocabularies end in every way that row_sum() distinguishes; they are in one tile and in several, which the last
// three do not all keep in shared memory; in packs and not.
TEST_F(CrossEntropyOnDevice, HasTheBitsOfTheCpu) {
  for (const int64_t vocab : {1, 2, 31, 32, 63, 64, 97, 1000, 4096, 4132, 16384, 16501, 29000}) {
    Case problem(3, vocab);
    problem.run(nullptr);
    EXPECT_TRUE(same_bits(problem.losses)) << vocab;
    const double sum = sum_of_losses(problem.losses.cpu());
    EXPECT_EQ(sum_of_losses(problem.losses.gpu()), sum);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      TwinTensor gradient(dtype, {3, vocab});
      problem.refill();
      problem.run(&gradient);
      EXPECT_TRUE(same_bits(problem.losses)) << vocab;
      EXPECT_TRUE(same_bits(gradient)) << vocab;
      EXPECT_EQ(sum_of_losses(problem.losses.gpu()), sum);
    }
    problem.refill();
    problem.run(&problem.logits);
    EXPECT_TRUE(same_bits(problem.losses)) << vocab;
    EXPECT_TRUE(same_bits(problem.logits)) << vocab;
  }
}

TEST_F(CrossEntropyOnDevice, LogitsThatAreNotFinite) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  for (const int64_t vocab : {97, 17000}) {
    Case problem(6, vocab);
    problem.logit(0, 0) = nan;
    problem.logit(1, vocab - 1) = nan;
    problem.logit(2, 40) = infinity;
    problem.logit(3, 5) = -infinity;
    for (int64_t word = 0; word < vocab; ++word) {
      problem.logit(4, word) = -infinity;
      problem.logit(5, word) = word == 3 ? 1.0F : -infinity;
    }
    problem.logits.upload();
    TwinTensor gradient(DType::bf16, {6, vocab});
    problem.run(&gradient);
    EXPECT_TRUE(same_numbers(problem.losses)) << vocab;
    EXPECT_TRUE(same_numbers(gradient)) << vocab;
    const HostCopy losses(problem.losses.gpu());
    for (const size_t token : {0, 1, 2, 4}) EXPECT_TRUE(is_nan(losses.as<float>()[token])) << token;
    EXPECT_TRUE(is_finite(losses.as<float>()[3]));
  }
}

}  // namespace
}  // namespace nibble
