#include "optim/gradient_norm.h"

#include <bit>
#include <limits>

#include "cuda/device_fixture.h"
#include "dist/owned_vector.h"
#include "dist/ranks/self_communicator.h"

namespace nibble {
namespace {

class GradientNormTest : public DeviceTest {};

GradientNorm norm_of(const Tensor& gradient) {
  SelfCommunicator self;
  return gradient_norm(self, OwnedVector(static_cast<uint64_t>(gradient.elements()), 1), gradient);
}

TEST_F(GradientNormTest, HasTheBitsOfTheCpu) {
  for (const int64_t count : {16, 32, 112, 4080, 4096, 4112, 4128, 70000}) {
    TwinTensor gradient(DType::f32, {count});
    gradient.fill_normal(static_cast<unsigned>(count));
    float* const values = gradient.cpu().as<float>();
    for (int64_t i = 0; i < count; ++i) values[i] = std::ldexp(values[i], static_cast<int>(i % 40) - 20);
    gradient.upload();
    const GradientNorm expected = norm_of(gradient.cpu());
    const GradientNorm found = norm_of(gradient.gpu());
    EXPECT_EQ(std::bit_cast<uint64_t>(found.norm), std::bit_cast<uint64_t>(expected.norm)) << count;
    EXPECT_TRUE(found.finite);
  }
}

// Compares the sum of each block, in which a different order of lanes would show.
TEST_F(GradientNormTest, BlocksHaveTheBitsOfTheCpu) {
  constexpr int64_t blocks = 5;
  constexpr auto block = static_cast<int64_t>(uint64_t{4096});
  TwinTensor gradient(DType::f32, {blocks * block});
  gradient.fill_normal(7);
  std::vector<double> sums(blocks);
  std::vector<Range> ranges;
  for (uint64_t i = 0; i < blocks; ++i) ranges.push_back({i * norm_block, (i + 1) * norm_block});
  cuda::sum_squares({gradient.gpu(), ranges, sums});
  for (int64_t i = 0; i < blocks; ++i) {
    const double norm = norm_of(gradient.cpu().slice(i * block, (i + 1) * block)).norm;
    EXPECT_EQ(std::sqrt(sums[static_cast<size_t>(i)]), norm);
  }
}

TEST_F(GradientNormTest, OneInfiniteElementShows) {
  for (const float value : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    TwinTensor gradient(DType::f32, {5008});
    gradient.cpu().as<float>()[5007] = value;
    gradient.upload();
    EXPECT_FALSE(norm_of(gradient.gpu()).finite);
  }
}

}  // namespace
}  // namespace nibble
