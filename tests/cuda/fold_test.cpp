#include "dist/zero/fold.h"

#include "cuda/device_fixture.h"
#include "dist/owned_vector.h"
#include "dist/ranks/self_communicator.h"
#include "dist/zero/tree_reduction.h"

namespace nibble {
namespace {

class FoldTest : public DeviceTest {};

// Fills values of very different sizes, so that another order of additions gives other bits.
void fill(TwinTensor& twin, unsigned seed) {
  twin.fill_normal(seed);
  float* const values = twin.cpu().as<float>();
  for (int64_t i = 0; i < twin.cpu().elements(); ++i)
    values[i] = std::ldexp(values[i], static_cast<int>(i * seed % 17));
  twin.upload();
}

struct Case {
  std::vector<TreeNode> nodes;
  uint64_t groups;
};

// Returns `leaves` nodes of the tree over `groups` groups, in ascending order, some of them of several groups.
Case nodes_of(uint64_t groups, int ranks) {
  Case result{{}, groups};
  const Schedule rows(MicroBatchGroups::of_count(groups, groups), ranks, Schedule::Order::rows);
  for (int rank = 0; rank < ranks; ++rank) {
    const GroupRange range = rows.groups_of(rank);
    const RankSums sums = sums_of_range(groups, range.begin, range.end);
    result.nodes.insert(result.nodes.end(), sums.nodes().begin(), sums.nodes().end());
  }
  return result;
}

// `offset` is that of every array from a multiple of 512 bytes.
void check(const Case& test, int64_t count, int64_t offset, bool in_place) {
  const size_t inputs = test.nodes.size();
  const OnePassFold fold(fold_of(test.groups, test.nodes), inputs);
  std::vector<std::unique_ptr<TwinTensor>> arrays;
  for (size_t input = 0; input <= inputs; ++input) {
    arrays.push_back(std::make_unique<TwinTensor>(DType::f32, std::initializer_list<int64_t>{offset + count}));
    fill(*arrays.back(), static_cast<unsigned>(input) + 1);
  }
  const TwinTensor& out = *arrays[in_place ? 0 : inputs];
  for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
    std::vector<const float*> values;
    for (size_t input = 0; input < inputs; ++input) values.push_back(arrays[input]->on(device).as<float>() + offset);
    fold.run(values, out.on(device).as<float>() + offset, static_cast<size_t>(count), device);
  }
  EXPECT_TRUE(same_bits(out)) << inputs << " inputs, " << count << " elements from " << offset;
}

TEST_F(FoldTest, HasTheBitsOfTheCpu) {
  for (const auto& [groups, ranks] : {std::pair{1, 1}, {2, 2}, {3, 3}, {5, 3}, {8, 8}, {13, 4}, {37, 7}, {64, 64}}) {
    const Case test = nodes_of(static_cast<uint64_t>(groups), ranks);
    check(test, 1000, 0, false);
    check(test, 1003, 0, true);
    check(test, 514, 3, false);
  }
}

TEST_F(FoldTest, TakesAsManyPartsAsItSays) {
  check(nodes_of(65, 65), 40, 0, true);
  check(nodes_of(1024, 1024), 9, 0, false);
  EXPECT_THROW(check(nodes_of(1025, 1025), 1, 0, false), Error);
}

TEST_F(FoldTest, OneArrayIsAddedToAnother) {
  for (const int64_t count : {0, 1, 4, 1023}) {
    TwinTensor left(DType::f32, {count + 1});
    TwinTensor right(DType::f32, {count + 1});
    fill(left, 1);
    fill(right, 2);
    for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
      add(left.on(device).as<float>(), right.on(device).as<float>(), static_cast<size_t>(count), device);
    }
    EXPECT_TRUE(same_bits(left));
  }
}

// The whole reduction of a rank alone: buffers are zeroed, sums of groups are formed, and the total is the tree's.
TEST_F(FoldTest, AReductionOnTheDeviceIsThatOfTheCpu) {
  const auto count = int64_t{4096 + 80};
  for (const uint64_t groups : {1, 2, 3, 7}) {
    SelfCommunicator self;
    const OwnedVector partition(static_cast<uint64_t>(count), 1);
    TwinTensor total(DType::f32, {count});
    for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
      SharedArena memory("test", self, device);
      std::optional<TreeReduction> reduction;
      const Schedule schedule(MicroBatchGroups::of_count(groups, groups), /*lanes=*/1, Schedule::Order::rows);
      const auto build = [&] { reduction.emplace(memory, self, partition, schedule); };
      memory.commit(build);
      build();
      for (int step = 0; step < 2; ++step) {
        for (unsigned group = 0; group < groups; ++group) {
          const std::span<float> sum = reduction->begin_slot();
          const Tensor leaf(sum.data(), DType::f32, {count}, device);
          TwinTensor gradient(DType::f32, {count});
          fill(gradient, group + 1);
          const HostCopy zero(leaf);
          for (const float value : zero.as<float>()) ASSERT_EQ(value, 0.0F);
          copy(gradient.cpu(), leaf);
          reduction->end_slot();
        }
        const std::span<float> shard = reduction->reduce_scatter();
        copy(Tensor(shard.data(), DType::f32, {count}, device), total.on(device));
      }
    }
    EXPECT_TRUE(same_bits(total)) << groups;
  }
}

}  // namespace
}  // namespace nibble
