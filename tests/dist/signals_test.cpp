// Tests of requests to stop and of the heartbeat file.
#include "dist/base/signals.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "dist/watch/heartbeat.h"

namespace nibble {
namespace {

// Ends a child process with the result of a test. Each test has one, because requests to stop are never taken back.
void leave_with(bool condition) {
  _exit(condition ? 0 : 1);
}

TEST(Signals, OneRequestIsRemembered) {
  for (const int number : {SIGUSR1, SIGTERM, SIGINT}) {
    EXPECT_EXIT(
        {
          install_signal_handlers();
          if (stop_requested()) _exit(2);
          raise(number);
          leave_with(stop_requested());
        },
        testing::ExitedWithCode(0), "");
  }
}

TEST(Signals, TheSecondTerminationEndsAtOnce) {
  EXPECT_EXIT(
      {
        install_signal_handlers();
        raise(SIGTERM);
        raise(SIGINT);
      },
      testing::ExitedWithCode(130), "");
  EXPECT_EXIT(
      {
        install_signal_handlers();
        raise(SIGINT);
        raise(SIGTERM);
      },
      testing::ExitedWithCode(143), "");
}

TEST(Signals, CheckpointRequestsDoNotCountAsTermination) {
  EXPECT_EXIT(
      {
        install_signal_handlers();
        raise(SIGUSR1);
        raise(SIGUSR1);
        raise(SIGTERM);
        leave_with(stop_requested());
      },
      testing::ExitedWithCode(0), "");
}

// Returns what a child process that `sender` sends a SIGCONT takes for a request within a second.
enum class Sender { parent, itself };
CheckpointRequest request_of_continued_child(Sender sender) {
  int ready[2];
  if (pipe(ready) != 0) throw std::runtime_error("pipe");
  const pid_t child = fork();
  if (child == 0) {
    install_signal_handlers();
    if (write(ready[1], "r", 1) != 1) _exit(100);
    if (sender == Sender::itself) raise(SIGCONT);
    CheckpointRequest request = CheckpointRequest::none;
    for (int i = 0; i < 100 && request == CheckpointRequest::none; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      request = take_checkpoint_request();
    }
    _exit(stop_requested() ? 101 : static_cast<int>(request));
  }
  char byte = 0;
  if (read(ready[0], &byte, 1) != 1) throw std::runtime_error("read");
  if (sender == Sender::parent) kill(child, SIGCONT);
  int status = 0;
  waitpid(child, &status, 0);
  close(ready[0]);
  close(ready[1]);
  return static_cast<CheckpointRequest>(WEXITSTATUS(status));
}

TEST(Signals, AContinuationByMpirunAsksForACheckpoint) {
  unsetenv("OMPI_COMM_WORLD_RANK");
  EXPECT_EQ(request_of_continued_child(Sender::parent), CheckpointRequest::none);
  setenv("OMPI_COMM_WORLD_RANK", "0", 1);
  EXPECT_EQ(request_of_continued_child(Sender::parent), CheckpointRequest::mpirun);
  EXPECT_EQ(request_of_continued_child(Sender::itself), CheckpointRequest::none);
  unsetenv("OMPI_COMM_WORLD_RANK");
}

TEST(Signals, AReaderThatGoesAwayDoesNotKill) {
  EXPECT_EXIT(
      {
        install_signal_handlers();
        raise(SIGPIPE);
        leave_with(!stop_requested());
      },
      testing::ExitedWithCode(0), "");
}

class HeartbeatTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove_all(directory_); }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string read() const {
    std::ifstream file(path_);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  // Returns the file's text once it contains `part`, or the current text after 30 seconds.
  std::string wait_for(const std::string& part) const {
    for (int tries = 0; tries < 3000; ++tries) {
      if (read().find(part) != std::string::npos) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return read();
  }

  std::filesystem::path directory_ =
      std::filesystem::temp_directory_path() / ("nibble-heartbeat-" + std::to_string(getpid()));
  std::filesystem::path path_ = directory_ / "heartbeat" / "rank-3";
};

TEST_F(HeartbeatTest, TellsWhatTheRankDoesAndGoesAway) {
  {
    Heartbeat heartbeat(path_);
    EXPECT_NE(wait_for("start").find("\"pid\": " + std::to_string(getpid()) + ","), std::string::npos);
    heartbeat.set(12, "say \"hi\"\n");
    EXPECT_NE(wait_for("say").find("\"step\": 12, \"phase\": \"say \\\"hi\\\"\\u000a\", \"since\": "),
              std::string::npos)
        << read();
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_TRUE(std::filesystem::is_empty(path_.parent_path()));
}

TEST_F(HeartbeatTest, AVanishedDirectoryHurtsNobody) {
  Heartbeat heartbeat(path_);
  wait_for("start");
  std::filesystem::remove_all(directory_);
  heartbeat.set(1, "train");
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // one more beat
  std::filesystem::create_directories(path_.parent_path());
  EXPECT_NE(wait_for("train").find("train"), std::string::npos);
  Heartbeat nowhere("/proc/nibble/rank-0");
}

}  // namespace
}  // namespace nibble
