// Checkpoints are saved by every number of ranks, loaded by every rank in every division, and read with h5py.
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>

#include "dist/base/error.h"
#include "dist/mpi_environment.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint_fixture.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing_support::load_shard;
using testing_support::ScratchDirectory;
using testing_support::Shard;
using testing_support::small_flat_size;

// The boundaries are uneven and cut through rows; the first of four ranks has no elements.
uint64_t boundary(int rank, int ranks) {
  if (rank == 0) return 0;
  if (rank == ranks) return small_flat_size;
  return ranks == 4 && rank == 1 ? 0 : static_cast<uint64_t>(rank) * 331 / static_cast<uint64_t>(ranks) + 77;
}

class MpiCheckpointTest : public testing::Test {
 protected:
  MpiCheckpointTest() {
    if (communicator().rank() == 0) scratch_ = std::make_unique<ScratchDirectory>("nibble_mpi_checkpoint");
    run_ = broadcast_string(communicator(), scratch_ ? scratch_->path().string() : "", 0);
  }
  ~MpiCheckpointTest() override { communicator().barrier(); }
  void save(uint64_t step) {
    Shard shard(step, boundary(communicator().rank(), communicator().size()),
                boundary(communicator().rank() + 1, communicator().size()));
    save_checkpoint(communicator(), run_, shard.state());
  }

  std::unique_ptr<ScratchDirectory> scratch_;
  fs::path run_;
};

TEST_F(MpiCheckpointTest, AnyRankLoadsAnyRange) {
  save(300);
  const CheckpointInfo info = find_checkpoint(communicator(), run_);
  EXPECT_EQ(info.ranks, communicator().size());
  for (int ranks = 1; ranks <= 5; ++ranks) {
    for (int rank = 0; rank < ranks; ++rank) {
      const uint64_t begin = small_flat_size * static_cast<uint64_t>(rank) / static_cast<uint64_t>(ranks);
      const uint64_t end = small_flat_size * static_cast<uint64_t>(rank + 1) / static_cast<uint64_t>(ranks);
      EXPECT_EQ(load_shard(info, begin, end), Shard(300, begin, end)) << rank << " of " << ranks;
    }
  }
}

TEST_F(MpiCheckpointTest, AllRanksAgreeOnDamage) {
  save(300);
  save(400);
  const int last = communicator().size() - 1;
  if (communicator().rank() == last) {
    fs::resize_file(run_ / "checkpoints/step-00000400" / ("rank-0000" + std::to_string(last) + ".h5"), 100);
  }
  communicator().barrier();
  EXPECT_EQ(find_checkpoint(communicator(), run_).step, 300u);
}

TEST_F(MpiCheckpointTest, AFailureOnOneRankIsAFailureOnAll) {
  save(300);
  const int last = communicator().size() - 1;
  Shard shard(400, boundary(communicator().rank(), communicator().size()),
              boundary(communicator().rank() + 1, communicator().size()));
  CheckpointState state = shard.state();
  if (communicator().rank() == last) state.buffers[1].group = "";  // no HDF5 name
  try {
    save_checkpoint(communicator(), run_, state);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io) << error.what();
  }
  communicator().barrier();
  EXPECT_EQ(std::distance(fs::directory_iterator(run_ / "checkpoints"), fs::directory_iterator()), 1);
  EXPECT_EQ(find_checkpoint(communicator(), run_).step, 300u);
}

TEST_F(MpiCheckpointTest, H5pySeesWholeTensorsAlsoAfterAMove) {
  save(300);
  if (communicator().rank() == 0) {
    fs::rename(run_ / "checkpoints/step-00000300", run_ / "moved");
    const std::string script =
        std::string("/usr/bin/python3 ") + NIBBLE_SOURCE_DIR + "/tests/trainer/checkpoint_h5py.py ";
    EXPECT_EQ(std::system((script + (run_ / "moved").string()).c_str()), 0) << "(needs Debian's python3-h5py)";
  }
  communicator().barrier();
}

}  // namespace
}  // namespace nibble
