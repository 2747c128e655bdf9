// Checkpoints are saved by every number of ranks, loaded by every rank in every division, and read with h5py.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "dist/base/error.h"
#include "dist/mpi_environment.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint_fixture.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing_support::cut_at;
using testing_support::load_shard;
using testing_support::ScratchDirectory;
using testing_support::Shard;
using testing_support::small_flat_size;
using testing_support::small_layout;

// The boundaries are uneven and cut through rows; the first of four ranks has no elements.
Placement uneven(int ranks) {
  std::vector<uint64_t> boundaries{0};
  for (int rank = 1; rank < ranks; ++rank) {
    const uint64_t middle = static_cast<uint64_t>(rank) * 331 / static_cast<uint64_t>(ranks) + 77;
    boundaries.push_back(ranks == 4 && rank == 1 ? 0 : middle);
  }
  boundaries.push_back(small_flat_size);
  return cut_at(small_layout(), boundaries);
}

// Tensors are dealt out in pieces, so that a rank holds many ranges and several parts of one tensor.
Placement striped(int ranks) {
  std::vector<Share> shares;
  const std::vector<TensorLayout>& tensors = small_layout().tensors();
  for (uint32_t i = 0; i < tensors.size(); ++i) {
    for (uint64_t begin = 0, stripe = i; begin < tensors[i].count; begin += 37, ++stripe) {
      shares.push_back({i,
                        {begin, std::min(begin + 37, tensors[i].count)},
                        {.first = static_cast<int>(stripe % static_cast<uint64_t>(ranks))}});
    }
  }
  return {small_layout(), ranks, std::move(shares), Placement::Cuts::anywhere};
}

void expect_h5py_reads(const fs::path& checkpoint) {
  const std::string command =
      fmt::format("/usr/bin/python3 {}/tests/trainer/checkpoint_h5py.py {}", NIBBLE_SOURCE_DIR, checkpoint.string());
  EXPECT_EQ(std::system(command.c_str()), 0) << "(needs Debian's python3-h5py)";
}

class MpiCheckpointTest : public testing::Test {
 protected:
  MpiCheckpointTest() {
    if (communicator().rank() == 0) scratch_ = std::make_unique<ScratchDirectory>("nibble_mpi_checkpoint");
    run_ = broadcast_string(communicator(), scratch_ ? scratch_->path().string() : "", 0);
  }
  ~MpiCheckpointTest() override { communicator().barrier(); }
  void save(uint64_t step) {
    Shard shard(step, owned_, communicator().rank());
    save_checkpoint(communicator(), run_, shard.state());
  }

  std::unique_ptr<ScratchDirectory> scratch_;
  fs::path run_;
  const Placement owned_ = uneven(communicator().size());
};

TEST_F(MpiCheckpointTest, AnyRankLoadsAnyRange) {
  save(300);
  const CheckpointInfo info = find_checkpoint(communicator(), run_);
  EXPECT_EQ(info.ranks, communicator().size());
  for (int ranks = 1; ranks <= 5; ++ranks) {
    std::vector<uint64_t> boundaries;
    for (int rank = 0; rank <= ranks; ++rank) {
      boundaries.push_back(small_flat_size * static_cast<uint64_t>(rank) / static_cast<uint64_t>(ranks));
    }
    const Placement placement = cut_at(small_layout(), boundaries);
    for (int rank = 0; rank < ranks; ++rank) {
      EXPECT_EQ(load_shard(info, placement, rank), Shard(300, placement, rank)) << rank << " of " << ranks;
    }
  }
}

TEST_F(MpiCheckpointTest, RanksMayHoldManyParts) {
  const Placement owned = striped(communicator().size());
  Shard shard(300, owned, communicator().rank());
  const fs::path directory = save_checkpoint(communicator(), run_, shard.state());
  const CheckpointInfo info = find_checkpoint(communicator(), run_);
  EXPECT_EQ(load_shard(info), Shard(300, testing_support::small_placement(), 0));
  for (const Placement& other : {striped(3), striped(5), uneven(2)}) {
    for (int rank = 0; rank < other.ranks(); ++rank) {
      EXPECT_EQ(load_shard(info, other, rank), Shard(300, other, rank)) << rank << " of " << other.ranks();
    }
  }
  if (communicator().rank() == 0) expect_h5py_reads(directory);
  communicator().barrier();
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
  Shard shard(400, owned_, communicator().rank());
  CheckpointState state = shard.state();
  if (communicator().rank() == last) state.arrays[1].name = "";  // no HDF5 name
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
    expect_h5py_reads(run_ / "moved");
  }
  communicator().barrier();
}

}  // namespace
}  // namespace nibble
