// Tests ranks with a GPU each. There are as many simulated GPUs as ranks; a machine with fewer real ones skips the
// tests.
#include <csignal>
#include <cstdlib>
#include <optional>

#include "cuda/device_fixture.h"
#include "dist/mpi_environment.h"
#include "dist/owned_vector.h"
#include "dist/ranks/device_communicator.h"
#include "dist/ranks/nccl_communicator.h"
#include "dist/ranks/staged_communicator.h"
#include "dist/zero/library_reduction.h"
#include "dist/zero/tree_reduction.h"

namespace nibble {
namespace {

constexpr double timeout_s = 30;

// Returns NIBBLE_TEST_TIMEOUT, seconds, for the tests of faults.
double timeout() {
  const char* text = std::getenv("NIBBLE_TEST_TIMEOUT");
  return text == nullptr ? timeout_s : std::atof(text);
}

const WantsMpi wants_mpi(__FILE__, {.timeout_s = timeout_s});

// A way in which ranks exchange device memory; null where there is one rank, as in a run.
using Ranks = std::unique_ptr<DeviceCommunicator>;
struct Way {
  const char* name;
  Ranks (*make)();
};
const std::vector<Way>& ways() {
  static const std::vector<Way> all = {
      {"NCCL",
       [] { return make_device_communicator(communicator(), DeviceKind::cuda, timeout(), /*nccl_only=*/true); }},
      {"staged", [] {
         // Strips so short that parts need several, and different numbers of them.
         return communicator().size() == 1
                    ? Ranks()
                    : std::make_unique<StagedCommunicator>(communicator(), DeviceKind::cuda, 5000);
       }}};
  return all;
}

class Nccl : public ::testing::Test {
 protected:
  void SetUp() override {
    setenv("NIBBLE_SIMULATED_GPUS", "4", /*overwrite=*/0);
    const int rank = communicator().rank();
    if (cuda::visible_devices().count < communicator().size()) GTEST_SKIP() << "fewer GPUs than ranks";
    cuda::use_device(rank);
    ASSERT_EQ(cuda::nccl_problem(), "");
  }
};

float value_of(uint64_t rank, uint64_t element) {
  const uint64_t mixed = (rank + 1) * 0x9E3779B97F4A7C15u ^ element * 0xC2B2AE3D27D4EB4Fu;
  return std::ldexp(static_cast<float>(mixed >> 40) / 16777216.0F - 0.5F, static_cast<int>(mixed & 15u));
}

std::span<std::byte> bytes_of(const Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data()), tensor.bytes()};
}

// Returns offsets in bytes, of which the first is not 0.
std::vector<uint64_t> offsets_of(bool equal) {
  std::vector<uint64_t> offsets{64};
  for (int rank = 0; rank < communicator().size(); ++rank) {
    const uint64_t length = equal ? 4000 : (rank == 1 ? 0 : 4000 + 1236 * static_cast<uint64_t>(rank));
    offsets.push_back(offsets.back() + length);
  }
  return offsets;
}

TEST_F(Nccl, AllGatherOfEqualAndUnequalParts) {
  for (const Way& way : ways()) {
    const Ranks ranks = way.make();
    if (ranks == nullptr) continue;
    for (const bool equal : {true, false}) {
      SCOPED_TRACE(way.name);
      const std::vector<uint64_t> offsets = offsets_of(equal);
      TwinTensor data(DType::u8, {static_cast<int64_t>(offsets.back()) + 16});
      TwinTensor expected(DType::u8, {static_cast<int64_t>(offsets.back()) + 16});
      for (size_t rank = 0; rank + 1 < offsets.size(); ++rank) {
        for (uint64_t i = offsets[rank]; i < offsets[rank + 1]; ++i) {
          const auto value = static_cast<uint8_t>(7 * i + rank);
          expected.cpu().as<uint8_t>()[i] = value;
          if (static_cast<int>(rank) == communicator().rank()) data.cpu().as<uint8_t>()[i] = value;
        }
      }
      data.upload();
      for (int repetition = 0; repetition < 3; ++repetition) ranks->all_gather(bytes_of(data.gpu()), offsets);
      EXPECT_TRUE(same_bits(expected.cpu(), data.gpu()));
    }
  }
}

TEST_F(Nccl, BroadcastFromEveryRank) {
  for (const Way& way : ways()) {
    const Ranks ranks = way.make();
    if (ranks == nullptr) continue;
    for (int root = 0; root < communicator().size(); ++root) {
      SCOPED_TRACE(way.name);
      TwinTensor data(DType::f32, {3000});
      data.fill_normal(static_cast<unsigned>(communicator().rank()) + 1);
      TwinTensor expected(DType::f32, {3000});
      expected.fill_normal(static_cast<unsigned>(root) + 1);
      ranks->broadcast(bytes_of(data.gpu()), root);
      EXPECT_TRUE(same_bits(expected.cpu(), data.gpu()));
    }
  }
}

// Errors that some ranks only have travel through memory of the CPU.
TEST_F(Nccl, RanksAgreeOnErrors) {
  for (const Way& way : ways()) {
    const Ranks ranks = way.make();
    if (ranks == nullptr) continue;
    const auto fail = [] {
      if (communicator().rank() == 1) throw Error(ExitCode::out_of_memory, "too large", "less");
    };
    EXPECT_THROW(run_together(*ranks, fail), AgreedError);
  }
}

// Returns the weights of two steps on one device, in each of which the ranks sum the tree and gather everybody's shard.
using Order = Schedule::Order;

Schedule schedule_of(uint64_t micro_batches, uint64_t groups, Order order) {
  return {MicroBatchGroups::of_count(micro_batches, groups), communicator().size(), order};
}

std::vector<float> shards(DeviceKind device, Communicator& ranks, const OwnedVector& partition,
                          const Schedule& schedule) {
  SharedArena memory("test", ranks, device);
  std::unique_ptr<GradientReduction> reduction;
  Tensor weights;
  const auto build = [&] {
    weights = allocate_tensor(memory.arena(), DType::f32, {static_cast<int64_t>(partition.elements())});
    reduction = make_gradient_reduction(ReductionKind::tree, memory, ranks, partition, schedule);
  };
  memory.commit(build);
  build();
  std::vector<float> result;
  const auto elements = static_cast<int64_t>(partition.elements());
  for (uint64_t step = 0; step < 2; ++step) {
    for (uint64_t slot = 0; slot < schedule.slots(); ++slot) {
      const std::span<float> sum = reduction->begin_slot();
      if (const std::optional<uint64_t> micro_batch = schedule.micro_batch(slot, ranks.rank())) {
        std::vector<float> gradient(partition.elements());
        for (uint64_t i = 0; i < gradient.size(); ++i) gradient[i] = value_of(*micro_batch, i + step);
        copy(tensor_of(std::span(gradient), {elements}), Tensor(sum.data(), DType::f32, {elements}, device));
      }
      reduction->end_slot();
    }
    const std::span<float> shard = reduction->reduce_scatter();
    const auto count = static_cast<int64_t>(shard.size());
    const auto first = static_cast<int64_t>(partition.begin(ranks.rank()));
    // As the optimizer does: updates the shard, then gathers everybody's.
    copy(Tensor(shard.data(), DType::f32, {count}, device), weights.slice(first, first + count));
    memory.all_gather(bytes_of(weights), partition.byte_offsets(sizeof(float)));
    const HostCopy gathered(weights);
    result.insert(result.end(), gathered.as<float>().begin(), gathered.as<float>().end());
  }
  return result;
}

TEST_F(Nccl, TheTreesSumHasTheBitsOfTheCpu) {
  for (const Way& way : ways()) {
    const Ranks ranks = way.make();
    SCOPED_TRACE(way.name);
    Communicator& used = ranks == nullptr ? communicator() : *ranks;
    for (const uint64_t groups : {1, 2, 3, 5, 8}) {
      for (const uint64_t elements : {uint64_t{7}, 5 * uint64_t{4096} + 100}) {
        const OwnedVector partition(elements, communicator().size());
        const Schedule rows = schedule_of(groups, groups, Order::rows);
        const std::vector<float> expected = shards(DeviceKind::cpu, communicator(), partition, rows);
        for (const Order order : {Order::rows, Order::stripes}) {
          const std::vector<float> found =
              shards(DeviceKind::cuda, used, partition, schedule_of(groups, groups, order));
          ASSERT_EQ(expected.size(), found.size());
          EXPECT_EQ(std::memcmp(expected.data(), found.data(), found.size() * sizeof(float)), 0)
              << groups << " groups in " << name_of(order);
        }
      }
    }
  }
}

// The gradients are integers, so that every order gives the same sum. early: buckets leave while gradients become
// complete.
void check_library_sum(DeviceCommunicator* ranks, const Schedule& schedule, bool early) {
  const uint64_t elements = 3 * uint64_t{4096} + 48;
  const OwnedVector partition(elements, communicator().size());
  const int rank = communicator().rank();
  Arena arena("test", DeviceKind::cuda);
  std::optional<LibraryReduction> reduction;
  const uint64_t groups = schedule.groups().count();
  const auto build = [&] { reduction.emplace(arena, ranks, partition, schedule, /*bucket=*/1000); };
  build();
  arena.commit();
  build();
  std::vector<float> values(elements);
  const auto shape = static_cast<int64_t>(elements);
  for (uint64_t step = 0; step < 2; ++step) {
    for (uint64_t slot = 0; slot < schedule.slots(); ++slot) {
      const std::span<float> gradients = reduction->begin_slot();
      const std::optional<uint64_t> group = schedule.micro_batch(slot, rank);
      if (!group) {
        reduction->end_slot();
        continue;
      }
      const Tensor sum(gradients.data(), DType::f32, {shape}, DeviceKind::cuda);
      {
        const HostCopy before(sum);
        for (uint64_t i = 0; i < elements; ++i) {
          values[i] = before.as<float>()[i] + static_cast<float>((*group + 1) * (i % 100) + step);
        }
      }
      copy(tensor_of(std::span(values), {shape}), sum);
      if (early && reduction->takes_early()) {
        for (uint64_t end = elements; end > 2000; end -= std::min<uint64_t>(end, 1700)) {
          reduction->complete(end - std::min<uint64_t>(end, 1700), end);
        }
      }
      reduction->end_slot();
    }
    const std::span<float> shard = reduction->reduce_scatter();
    ASSERT_EQ(shard.size(), partition.count(rank));
    const HostCopy found(Tensor(shard.data(), DType::f32, {static_cast<int64_t>(shard.size())}, DeviceKind::cuda));
    for (uint64_t i = 0; i < shard.size(); ++i) {
      const uint64_t element = partition.begin(rank) + i;
      const uint64_t expected = groups * (groups + 1) / 2 * (element % 100) + groups * step;
      ASSERT_EQ(found.as<float>()[i], static_cast<float>(expected)) << element;
    }
  }
}

TEST_F(Nccl, SumsByTheLibraryAreSums) {
  const Ranks ranks = ways().front().make();
  for (const uint64_t groups : {1, 2, 4, 7}) {
    for (const Order order : {Order::rows, Order::stripes}) {
      for (const bool early : {false, true}) {
        check_library_sum(ranks.get(), schedule_of(groups, groups, order), early);
      }
    }
  }
}

TEST_F(Nccl, SumsByALibraryThatIsNotThereAreRefused) {
  const Ranks ranks = ways().back().make();
  if (ranks == nullptr) return;
  SharedArena memory("test", *ranks, DeviceKind::cuda);
  const OwnedVector partition(100, ranks->size());
  EXPECT_THROW(make_gradient_reduction(ReductionKind::nccl, memory, *ranks, partition, schedule_of(4, 4, Order::rows)),
               Error);
  SharedArena on_cpu("test", communicator());
  EXPECT_THROW(
      make_gradient_reduction(ReductionKind::nccl, on_cpu, communicator(), partition, schedule_of(4, 4, Order::rows)),
      Error);
}

// A fault of nccl_abort_test.sh: an exchange that some rank never ends. NIBBLE_SIMULATED_NCCL_FAULT names the rank.
TEST_F(Nccl, Fault) {
  if (std::getenv("NIBBLE_TEST_FAULTS") == nullptr) GTEST_SKIP() << "a fault ends the program";
  const Ranks ranks = ways().front().make();
  TwinTensor data(DType::f32, {4096});
  for (int repetition = 0; repetition < 3; ++repetition) {
    ranks->broadcast(bytes_of(data.gpu()), 0);
    ranks->all_gather(bytes_of(data.gpu()), OwnedVector(4096 * 4, ranks->size()).byte_offsets(1));
  }
  synchronize(DeviceKind::cuda);
}

}  // namespace
}  // namespace nibble
