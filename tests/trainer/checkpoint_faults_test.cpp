// Damages checkpoints: flipped bits, cut and lost files, full disks. The program must use the previous checkpoint with
// a warning, or end with an error; it must never load silently and never end by a signal.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <set>
#include <thread>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/ranks/self_communicator.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint_fixture.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing_support::load_shard;
using testing_support::ScratchDirectory;
using testing_support::Shard;
using testing_support::whole_state;

fs::path save(const fs::path& run, uint64_t step) {
  SelfCommunicator communicator;
  Shard shard = whole_state(step);
  return save_checkpoint(communicator, run, shard.state());
}

std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.insert(entry.path().filename());
  return names;
}

size_t occurrences(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

void flip(const fs::path& path, uint64_t position) {
  const int descriptor = open(path.c_str(), O_RDWR);
  unsigned char byte = 0;
  ASSERT_EQ(pread(descriptor, &byte, 1, static_cast<off_t>(position)), 1);
  byte = static_cast<unsigned char>(byte ^ (1u << (position % 8)));
  ASSERT_EQ(pwrite(descriptor, &byte, 1, static_cast<off_t>(position)), 1);
  close(descriptor);
}

class CheckpointFaultsTest : public testing::Test {
 protected:
  CheckpointFaultsTest() {
    save(run_, 100);
    newest_ = save(run_, 200);
  }
  ScratchDirectory scratch_{"nibble_checkpoint_faults"};
  fs::path run_ = scratch_.path();
  fs::path newest_;
  SelfCommunicator communicator_;
};

TEST_F(CheckpointFaultsTest, EveryFlippedBitIsNoticed) {
  testing::internal::CaptureStderr();
  size_t flips = 0;
  for (const std::string& name : names_in(newest_)) {
    const uint64_t bytes = fs::file_size(newest_ / name);
    const uint64_t stride = bytes < 8192 ? 1 : 5;
    for (uint64_t position = 0; position < bytes; position += stride, ++flips) {
      flip(newest_ / name, position);
      ASSERT_EQ(find_checkpoint(communicator_, run_).step, 100u) << name << " at byte " << position;
      flip(newest_ / name, position);
    }
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_GT(flips, 4000u);
  EXPECT_EQ(occurrences(log, "the checkpoint of step 200 is damaged: "), flips);
  EXPECT_EQ(occurrences(log, "using the checkpoint of step 100 instead"), flips);
  const CheckpointInfo info = find_checkpoint(communicator_, run_);
  EXPECT_EQ(load_shard(info), whole_state(200));
}

TEST_F(CheckpointFaultsTest, EveryCutFileIsNoticed) {
  testing::internal::CaptureStderr();
  for (const std::string& name : names_in(newest_)) {
    const std::string whole = read_file(newest_ / name, 1 << 30);
    for (uint64_t bytes = 0; bytes < whole.size(); bytes += 1 + whole.size() / 50) {
      fs::resize_file(newest_ / name, bytes);
      ASSERT_EQ(find_checkpoint(communicator_, run_).step, 100u) << name << " cut to " << bytes;
    }
    fs::remove(newest_ / name);
    ASSERT_EQ(find_checkpoint(communicator_, run_).step, 100u) << name << " lost";
    fs::create_directory(newest_ / name);
    ASSERT_EQ(find_checkpoint(communicator_, run_).step, 100u) << name << " a directory";
    fs::remove(newest_ / name);
    ASSERT_EQ(mkfifo((newest_ / name).c_str(), 0600), 0);
    ASSERT_EQ(find_checkpoint(communicator_, run_).step, 100u) << name << " a pipe";
    fs::remove(newest_ / name);
    std::ofstream(newest_ / name, std::ios::binary) << whole;
    ASSERT_EQ(find_checkpoint(communicator_, run_).step, 200u) << name;
  }
  EXPECT_NE(testing::internal::GetCapturedStderr().find("rank-00000.h5 has 0 bytes, expected"), std::string::npos);
}

TEST_F(CheckpointFaultsTest, AllDamagedIsAnErrorThatNamesTheFile) {
  flip(newest_ / "rank-00000.h5", 1000);
  flip(run_ / "checkpoints/step-00000100/index.h5", 1000);
  try {
    find_checkpoint(communicator_, run_);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("step-00000200/rank-00000.h5 has hash"), std::string::npos)
        << error.what();
  }
}

TEST_F(CheckpointFaultsTest, ADamagedCheckpointCanBeSetAside) {
  flip(newest_ / "rank-00000.h5", 1000);
  EXPECT_EQ(find_checkpoint(communicator_, run_, DamagedCheckpoint::set_aside).step, 100u);
  EXPECT_EQ(names_in(run_ / "checkpoints"), (std::set<std::string>{"step-00000100", "step-00000200.corrupt"}));
  flip(save(run_, 200) / "rank-00000.h5", 1000);
  EXPECT_EQ(find_checkpoint(communicator_, run_, DamagedCheckpoint::set_aside).step, 100u);
  EXPECT_EQ(names_in(run_ / "checkpoints"),
            (std::set<std::string>{"step-00000100", "step-00000200.corrupt", "step-00000200.corrupt.2"}));
}

// Runs a function in a child process. Returns its exit code, or 1000 + the signal that ended it.
template <class Function>
int in_child(Function&& function) {
  const pid_t child = fork();
  if (child == 0) {
    try {
      std::exit(function());  // runs exit handlers: that of HDF5 must not crash
    } catch (const Error& error) {
      std::exit(static_cast<int>(error.code()));
    }
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

// A process is killed at every stage of saving. Afterwards the checkpoint is complete or absent.
TEST_F(CheckpointFaultsTest, AKilledSaveLeavesWholeCheckpointsOnly) {
  const auto start = std::chrono::steady_clock::now();
  save(run_, 200);
  const auto duration = std::chrono::steady_clock::now() - start;
  testing::internal::CaptureStderr();
  int finished = 0;
  for (int trial = 0; trial < 80; ++trial) {
    const pid_t child = fork();
    if (child == 0) {
      save(run_, 300);
      _exit(0);
    }
    std::this_thread::sleep_for(duration * trial / 60);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const CheckpointInfo info = find_checkpoint(communicator_, run_);
    ASSERT_EQ(load_shard(info), whole_state(info.step));
    if (info.step == 300) {
      ++finished;
      fs::remove_all(info.directory);
    }
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << finished << " saves finished";
  remove_leftovers(run_);
  EXPECT_EQ(names_in(run_ / "checkpoints"), (std::set<std::string>{"step-00000100", "step-00000200"}));
}

// The write that fails may be one of HDF5's or one of nibble's: data, metadata at close, or the manifest.
TEST_F(CheckpointFaultsTest, WritesThatFailLeaveTheOldCheckpointsAlone) {
  const uint64_t largest = std::max(fs::file_size(newest_ / "rank-00000.h5"), fs::file_size(newest_ / "index.h5"));
  for (uint64_t limit = 0; limit < largest; limit += 1 + largest / 60) {
    const int code = in_child([&] {
      signal(SIGXFSZ, SIG_IGN);
      const rlimit limits{limit, limit};
      setrlimit(RLIMIT_FSIZE, &limits);
      save(run_, 300);
      return 0;
    });
    ASSERT_EQ(code, static_cast<int>(ExitCode::io)) << "files limited to " << limit << " bytes";
    ASSERT_EQ(names_in(run_ / "checkpoints"), (std::set<std::string>{"step-00000100", "step-00000200"})) << limit;
  }
  EXPECT_EQ(find_checkpoint(communicator_, run_).step, 200u);
}

TEST_F(CheckpointFaultsTest, TheProcessCanSaveAfterAFailure) {
  const int code = in_child([&] {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limits{6000, RLIM_INFINITY};
    setrlimit(RLIMIT_FSIZE, &limits);
    try {
      save(run_, 300);
      return 1;
    } catch (const Error&) {
    }
    const rlimit lifted{RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_FSIZE, &lifted);
    save(run_, 300);
    return 0;
  });
  EXPECT_EQ(code, 0);
  const CheckpointInfo info = find_checkpoint(communicator_, run_);
  EXPECT_EQ(load_shard(info), whole_state(300));
}

TEST_F(CheckpointFaultsTest, ASmallDiskIsNoticedBeforeAnythingIsWritten) {
  constexpr int no_mount = 3;
  const fs::path small = run_ / "small";
  fs::create_directory(small);
  const int code = in_child([&] {
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("none", small.c_str(), "tmpfs", 0, "size=512k") != 0) {
      return no_mount;
    }
    try {
      save(small, 1);
    } catch (const Error& error) {
      const bool named = std::string(error.what()).find("a checkpoint needs ") != std::string::npos;
      return named && names_in(small / "checkpoints").empty() ? static_cast<int>(error.code()) : 1;
    }
    return 0;
  });
  if (code == no_mount) GTEST_SKIP() << "cannot mount a small disk here";
  EXPECT_EQ(code, static_cast<int>(ExitCode::io));
}

}  // namespace
}  // namespace nibble
