#include "trainer/directory/run_directory.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/ranks/self_communicator.h"
#include "trainer/checkpoint_fixture.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing_support::ScratchDirectory;

class RunDirectoryTest : public testing::Test {
 protected:
  // Returns exit code and text of the Error in a second process that tries to train here.
  std::pair<int, std::string> second_process() {
    int channel[2] = {};
    EXPECT_EQ(pipe(channel), 0);
    const pid_t child = fork();
    if (child == 0) {
      try {
        const RunDirectory directory = RunDirectory::open(communicator_, run_);
        _exit(0);
      } catch (const Error& error) {
        const std::string text = error.what();
        _exit(write(channel[1], text.data(), text.size()) > 0 ? static_cast<int>(error.code()) : 1);
      }
    }
    close(channel[1]);
    std::string text(4096, '\0');
    text.resize(static_cast<size_t>(std::max<ssize_t>(read(channel[0], text.data(), text.size()), 0)));
    close(channel[0]);
    int status = 0;
    waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text};
  }
  ExitCode code_of_create() {
    try {
      RunDirectory::create(communicator_, run_, "x: 1\n");
      return ExitCode::ok;
    } catch (const Error& error) {
      return error.code();
    }
  }

  ScratchDirectory scratch_{"nibble_run_directory"};
  fs::path run_ = scratch_.path() / "runs/demo";
  SelfCommunicator communicator_;
};

TEST_F(RunDirectoryTest, CreatesWhatBelongsThere) {
  const RunDirectory directory = RunDirectory::create(communicator_, run_, "x: 1\n");
  EXPECT_EQ(read_file(directory.config_file(), 100), "x: 1\n");
  EXPECT_TRUE(fs::is_directory(directory.checkpoints()));
  const auto lock = nlohmann::json::parse(read_file(run_ / "lock", 1000));
  EXPECT_EQ(lock.at("pid").get<int64_t>(), getpid());
  EXPECT_FALSE(lock.at("host").get<std::string>().empty());
  EXPECT_EQ(lock.at("started").get<std::string>().size(), std::string("2026-01-01T00:00:00Z").size());
  directory.write_config("x: 2\n");
  EXPECT_EQ(read_file(directory.config_file(), 100), "x: 2\n");
}

TEST_F(RunDirectoryTest, ASecondProcessIsToldWhoHoldsIt) {
  {
    RunDirectory first = RunDirectory::create(communicator_, run_, "");
    const RunDirectory moved = std::move(first);
    const auto [code, text] = second_process();
    EXPECT_EQ(code, static_cast<int>(ExitCode::directory_in_use));
    EXPECT_NE(text.find("process " + std::to_string(getpid()) + " on "), std::string::npos) << text;
  }
  EXPECT_EQ(second_process().first, 0);
}

TEST_F(RunDirectoryTest, TheLockOfAKilledProcessIsTakenOver) {
  int channel[2] = {};
  ASSERT_EQ(pipe(channel), 0);
  const pid_t child = fork();
  if (child == 0) {
    const RunDirectory directory = RunDirectory::create(communicator_, run_, "");
    if (write(channel[1], "x", 1) == 1) pause();
    _exit(0);
  }
  char byte = 0;
  ASSERT_EQ(read(channel[0], &byte, 1), 1);
  EXPECT_EQ(second_process().first, static_cast<int>(ExitCode::directory_in_use));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_EQ(second_process().first, 0);
}

TEST_F(RunDirectoryTest, ADirectoryWithARunIsRefused) {
  EXPECT_EQ(code_of_create(), ExitCode::ok);
  EXPECT_EQ(code_of_create(), ExitCode::ok);  // a configuration alone is no run: an earlier start may have failed
  std::ofstream(run_ / "metrics.jsonl") << "{}\n";
  EXPECT_EQ(code_of_create(), ExitCode::cannot_create);
  fs::remove(run_ / "metrics.jsonl");
  fs::create_directories(run_ / "checkpoints/step-00000010");
  EXPECT_EQ(code_of_create(), ExitCode::cannot_create);
  EXPECT_EQ(second_process().first, 0);
}

TEST_F(RunDirectoryTest, OpeningNothingIsMissingInput) {
  EXPECT_EQ(second_process().first, static_cast<int>(ExitCode::missing_input));
}

TEST_F(RunDirectoryTest, APlaceThatCannotBeWrittenIsRefusedAtOnce) {
  std::ofstream(scratch_.path() / "runs") << "a file\n";
  EXPECT_EQ(code_of_create(), ExitCode::cannot_create);
}

TEST_F(RunDirectoryTest, LeftoversOfAKilledSaveGo) {
  fs::create_directories(run_ / "checkpoints/.tmp.step-00000010.5.0");
  EXPECT_EQ(code_of_create(), ExitCode::ok);
  EXPECT_TRUE(fs::is_empty(run_ / "checkpoints"));
}

}  // namespace
}  // namespace nibble
