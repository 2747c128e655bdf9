// Tests of the gradient norm on several ranks. They run under mpirun.
#include "optim/gradient_norm.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "dist/device/thread_pool.h"
#include "dist/mpi_environment.h"
#include "dist/owned_vector.h"
#include "dist/random_layout.h"
#include "dist/ranks/self_communicator.h"

namespace nibble {
namespace {

std::vector<float> gradient(uint64_t elements) {
  std::vector<float> values(elements);
  uint64_t state = 12345;
  for (float& value : values) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const float fraction = static_cast<float>(state >> 40) / 16777216.0f - 0.5f;
    value = std::ldexp(fraction, static_cast<int>((state >> 33) & 31u) - 16);
  }
  return values;
}

GradientNorm norm_on_all_ranks(std::vector<float> values) {
  const OwnedVector partition(values.size(), communicator().size());
  values.resize(partition.elements());
  const int rank = communicator().rank();
  std::vector<float> shard(values.begin() + static_cast<int64_t>(partition.begin(rank)),
                           values.begin() + static_cast<int64_t>(partition.end(rank)));
  return gradient_norm(communicator(), partition, tensor_of(std::span(shard), {static_cast<int64_t>(shard.size())}));
}

GradientNorm norm_on_one_rank(std::vector<float> values) {
  SelfCommunicator self;
  const OwnedVector partition(values.size(), 1);
  values.resize(partition.elements());
  return gradient_norm(self, partition, tensor_of(std::span(values), {static_cast<int64_t>(values.size())}));
}

TEST(GradientNorm, TheSameBitsOnAnyNumberOfRanksAndThreads) {
  for (const uint64_t elements : {uint64_t{1}, uint64_t{4095}, uint64_t{4097}, uint64_t{40000}, uint64_t{1000003}}) {
    const std::vector<float> values = gradient(elements);
    const GradientNorm expected = norm_on_one_rank(values);
    set_compute_threads(2);
    const GradientNorm norm = norm_on_all_ranks(values);
    set_compute_threads(1);
    EXPECT_TRUE(norm.finite);
    EXPECT_EQ(std::bit_cast<uint64_t>(norm.norm), std::bit_cast<uint64_t>(expected.norm)) << elements;
    long double sum = 0;
    for (const float value : values) sum += static_cast<long double>(value) * value;
    const auto exact = static_cast<double>(std::sqrt(sum));
    // Every addition of positive terms errs by at most half a unit: 256 in a lane, 4 in the tree, one for each block.
    const double bound = (256 + 4 + static_cast<double>(elements) / 4096 + 2) * 1.2e-16;
    EXPECT_NEAR(norm.norm, exact, bound * exact);
  }
}

// The definition of the header, recursively.
double tree(const std::vector<double>& values, size_t first, size_t length) {
  if (length == 1) return values[first];
  const size_t half = length / 2;
  const double left = tree(values, first, half);
  return first + half >= values.size() ? left : left + tree(values, first + half, half);
}
double tree(const std::vector<double>& values) {
  return tree(values, 0, std::bit_ceil(values.size()));
}
double squares_of_block(const float* values, size_t count) {
  double lane[16] = {};
  for (size_t i = 0; i < count; ++i) lane[i % 16] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  for (size_t width = 8; width > 0; width /= 2) {
    for (size_t j = 0; j < width; ++j) lane[j] += lane[j + width];
  }
  return lane[0];
}

// Layouts of many tensors with units, whose grains are blocks.
Layout layout_of_blocks(uint32_t seed) {
  Layout drawn = random_layout(seed);
  std::vector<TensorLayout> tensors = drawn.tensors();
  for (TensorLayout& tensor : tensors) tensor.grain = norm_block;
  return {drawn.buckets(), std::move(tensors)};
}

TEST(GradientNorm, IsItsDefinitionForEveryPlacement) {
  const int ranks = communicator().size();
  const int rank = communicator().rank();
  const std::vector<RankSet> members = each_rank(ranks);
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const Layout layout = layout_of_blocks(seed);
    std::vector<float> values = gradient(layout.elements());
    std::vector<double> of_tensors;
    for (const TensorLayout& tensor : layout.tensors()) {
      std::vector<double> blocks;
      for (const Range& unit : tensor.units()) {
        for (uint64_t first = unit.begin; first < unit.end; first += norm_block) {
          blocks.push_back(
              squares_of_block(values.data() + tensor.offset + first, std::min(norm_block, unit.end - first)));
        }
      }
      of_tensors.push_back(tree(blocks));
    }
    const double expected = std::sqrt(tree(of_tensors));
    for (const Placement& owned : {contiguous(layout, ranks), by_bucket(layout, members), by_matrix(layout, members)}) {
      std::vector<float> shard;
      for (const Range& range : owned.ranges(rank)) {
        shard.insert(shard.end(), values.begin() + static_cast<int64_t>(range.begin),
                     values.begin() + static_cast<int64_t>(range.end));
      }
      const GradientNorm norm =
          gradient_norm(communicator(), owned, tensor_of(std::span(shard), {static_cast<int64_t>(shard.size())}));
      EXPECT_EQ(std::bit_cast<uint64_t>(norm.norm), std::bit_cast<uint64_t>(expected)) << seed;
    }
  }
}

TEST(GradientNorm, KnownValues) {
  EXPECT_EQ(norm_on_all_ranks({3, 4}).norm, 5.0);
  EXPECT_EQ(norm_on_all_ranks(std::vector<float>(10000, 2.0f)).norm, 200.0);
  EXPECT_EQ(norm_on_all_ranks(std::vector<float>(10000, 0.0f)).norm, 0.0);
  const float largest = std::numeric_limits<float>::max();
  EXPECT_TRUE(norm_on_all_ranks(std::vector<float>(10000, largest)).finite);
}

TEST(GradientNorm, OneBadElementAnywhereIsSeenEverywhere) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    for (const size_t at : {size_t{0}, size_t{4096}, size_t{19999}}) {
      std::vector<float> values = gradient(20000);
      values[at] = bad;
      EXPECT_FALSE(norm_on_all_ranks(values).finite) << at;
    }
  }
}

TEST(ClipScale, ShrinksToTheMaximumAndNeverGrows) {
  EXPECT_EQ(clip_scale(4.0, 1.0), 0.25f);
  EXPECT_EQ(clip_scale(0.5, 1.0), 1.0f);
  EXPECT_EQ(clip_scale(1.0, 1.0), 1.0f);
  EXPECT_EQ(clip_scale(0.0, 1.0), 1.0f);
  EXPECT_EQ(clip_scale(1e30, 0.0), 1.0f);
}

}  // namespace
}  // namespace nibble
