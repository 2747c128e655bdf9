// NCCL with one rank: all of it that one GPU can show. A run on one GPU uses no NCCL.
#include <stdexcept>

#include "cuda/device_fixture.h"
#include "dist/ranks/nccl_communicator.h"
#include "dist/ranks/self_communicator.h"

namespace nibble {
namespace {

constexpr double timeout_s = 30;

class NcclOfOneRank : public DeviceTest {
 protected:
  void SetUp() override {
    if (const std::string problem = cuda::nccl_problem(); !problem.empty()) GTEST_SKIP() << problem;
    data_.fill_normal(1);
  }

  std::unique_ptr<DeviceCommunicator> make() { return cuda::make_nccl_communicator(host_, timeout_s); }
  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(data_.gpu().data()), data_.gpu().bytes()}; }

  // Every collective of one rank leaves its data as it is.
  void use(DeviceCommunicator& rank) {
    rank.broadcast(bytes(), 0);
    rank.all_gather(bytes(), std::vector<uint64_t>{0, bytes().size()});
    rank.start_sum(std::span(data_.gpu().as<float>(), 4096), 0);
    rank.finish_sums();
    rank.exchange(std::vector<std::span<const std::byte>>(1), std::vector<std::span<std::byte>>(1));
    EXPECT_TRUE(same_bits(data_));
  }

  SelfCommunicator host_;
  TwinTensor data_{DType::f32, {4096}};
};

TEST_F(NcclOfOneRank, StartsSumsGathersBroadcastsAndEnds) {
  for (int repetition = 0; repetition < 2; ++repetition) {
    const std::unique_ptr<DeviceCommunicator> rank = make();
    for (int step = 0; step < 20; ++step) use(*rank);
  }
}

// While an exception unwinds, the communicator is aborted, with its operations still in the stream.
TEST_F(NcclOfOneRank, IsAbortedByAnException) {
  const auto fail = [&] {
    const std::unique_ptr<DeviceCommunicator> rank = make();
    rank->broadcast(bytes(), 0);
    throw std::runtime_error("a failed step");
  };
  EXPECT_THROW(fail(), std::runtime_error);
  use(*make());
}

}  // namespace
}  // namespace nibble
