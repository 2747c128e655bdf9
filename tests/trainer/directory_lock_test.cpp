#include "trainer/directory/directory_lock.h"

#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "dist/base/error.h"
#include "trainer/checkpoint_fixture.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

class DirectoryLockTest : public testing::TestWithParam<bool> {
 protected:
  DirectoryLock take(std::chrono::seconds patience = std::chrono::seconds(15)) const {
    return {file_, {.remedy = "wait", .patience = patience, .kernel_locks = GetParam()}};
  }
  // The text of the error; empty if the lock could be taken.
  std::string refusal() const {
    try {
      take();
      return {};
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::directory_in_use);
      EXPECT_EQ(error.remedy(), "wait");
      return error.what();
    }
  }

  testing_support::ScratchDirectory scratch_{"nibble_directory_lock"};
  fs::path file_ = scratch_.path() / "lock";
};

TEST_P(DirectoryLockTest, OneHolderAtATime) {
  {
    DirectoryLock first = take();
    EXPECT_TRUE(first.held());
    const DirectoryLock moved = std::move(first);
    EXPECT_FALSE(first.held());  // NOLINT(bugprone-use-after-move)
    EXPECT_NE(refusal().find("in use by process " + std::to_string(getpid()) + " on "), std::string::npos);
  }
  EXPECT_TRUE(fs::is_empty(scratch_.path()));
  EXPECT_EQ(refusal(), "");
}

TEST_P(DirectoryLockTest, AFileThatADeadProcessLeftIsReplaced) {
  for (const char* name : {"lock", "lock.held"}) {
    std::ofstream(scratch_.path() / name) << R"({"pid": 1, "host": "gone", "started": "2026-01-01T00:00:00Z"})"
                                          << "\n";
  }
  const DirectoryLock lock = take(std::chrono::seconds(1));
  EXPECT_TRUE(lock.held());
  EXPECT_NE(refusal().find("in use by process " + std::to_string(getpid())), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(KernelAndFile, DirectoryLockTest, testing::Bool());

class HeldFileTest : public DirectoryLockTest {};

TEST_P(HeldFileTest, IsTouchedAndRefusesForAsLongAsItIs) {
  const DirectoryLock lock = take();
  const auto before = fs::last_write_time(scratch_.path() / "lock.held");
  std::this_thread::sleep_for(std::chrono::milliseconds(2500));
  EXPECT_NE(fs::last_write_time(scratch_.path() / "lock.held"), before);
  EXPECT_NE(refusal(), "");
}

TEST_P(HeldFileTest, AHolderThatWasReplacedSaysSoAndRemovesNothing) {
  testing::internal::CaptureStderr();
  {
    const DirectoryLock lock = take();
    fs::remove(scratch_.path() / "lock.held");
    std::ofstream(scratch_.path() / "lock.held") << "another\n";
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  }
  EXPECT_NE(testing::internal::GetCapturedStderr().find("another process may work in this directory"),
            std::string::npos);
  EXPECT_TRUE(fs::exists(scratch_.path() / "lock.held"));
}

INSTANTIATE_TEST_SUITE_P(File, HeldFileTest, testing::Values(false));

}  // namespace
}  // namespace nibble
