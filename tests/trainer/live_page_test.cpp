#include "trainer/page/live_page.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "trainer/page/page_server.h"
#include "trainer/page/run_follower.h"

namespace nibble {
namespace {

class LivePageTest : public testing::Test {
 protected:
  LivePageTest() { std::filesystem::remove_all(directory_); }
  ~LivePageTest() override { std::filesystem::remove_all(directory_); }

  static std::string step(uint64_t step, double loss) {
    return fmt::format(
        R"({{"event":"step","time":{},"step":{},"tokens":{},"loss":{},"grad_norm":1,"lr":1,"tokens_per_second":1,"mfu":0}})",
        1000 + step, step, 100 * step, loss);
  }
  void append(const std::string& text) const {
    std::filesystem::create_directories(directory_);
    std::ofstream(directory_ / "metrics.jsonl", std::ios::app) << text;
  }

  std::filesystem::path directory_ =
      std::filesystem::temp_directory_path() / fmt::format("nibble_live_page_{}", getpid());
};

TEST_F(LivePageTest, ARunIsReadAsItGrows) {
  RunFollower run(directory_);
  EXPECT_TRUE(run.refresh());
  EXPECT_NE(run.message().find("no such directory yet"), std::string::npos);
  EXPECT_FALSE(run.refresh()) << "nothing has changed";
  append(step(1, 5) + "\n" + step(2, 4).substr(0, 20));  // the second line is being written
  EXPECT_TRUE(run.refresh());
  EXPECT_EQ(run.run().history.steps.size(), 1U);
  append(step(2, 4).substr(20) + "\n" + step(3, 3) + "\n");
  EXPECT_TRUE(run.refresh());
  ASSERT_EQ(run.run().history.steps.size(), 3U);
  EXPECT_EQ(run.run().history.steps[1].loss, 4);
  EXPECT_EQ(run.run().history.steps[2].seconds, 2);
  append(R"({"event":"resume","time":1010,"step":1})"
         "\n" +
         step(2, 4.5) + "\n");
  EXPECT_TRUE(run.refresh());
  ASSERT_EQ(run.run().history.steps.size(), 2U);
  EXPECT_EQ(run.run().history.steps[1].loss, 4.5);
}

TEST_F(LivePageTest, ADamagedLineAndALostDirectoryAreMessages) {
  RunFollower run(directory_);
  append(step(1, 5) + "\nnot JSON\n" + step(2, 4) + "\n");
  run.refresh();
  EXPECT_EQ(run.run().history.steps.size(), 2U);
  std::filesystem::remove_all(directory_);
  EXPECT_TRUE(run.refresh());
  EXPECT_NE(run.message().find("no longer there"), std::string::npos);
  EXPECT_EQ(run.run().history.steps.size(), 2U) << "what was read stays";
  append(step(1, 9) + "\n");  // another run in the same place
  run.refresh();
  ASSERT_EQ(run.run().history.steps.size(), 1U);
  EXPECT_EQ(run.run().history.steps[0].loss, 9);
}

TEST_F(LivePageTest, OnlyWhatHasChangedIsSent) {
  append(step(1, 5) + "\n");
  LivePage page({directory_});
  const nlohmann::json first = nlohmann::json::parse(page.news({})).at("parts");
  std::set<std::string, std::less<>> have;
  for (const auto& [name, part] : first.items()) have.insert(part.at("tag"));
  EXPECT_EQ(have.size(), first.size()) << "no two parts have one tag";
  EXPECT_TRUE(nlohmann::json::parse(page.news(have)).at("parts").empty());
  append(step(2, 4) + "\n");
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  const nlohmann::json news = nlohmann::json::parse(page.news(have)).at("parts");
  EXPECT_EQ(news.size(), 1U) << news;
  EXPECT_EQ(news.at("run-0").at("data").at("step"), 2);
}

TEST(PageServer, LoopbackIsThisMachineAlone) {
  for (const char* host : {"localhost", "127.0.0.1", "127.1.2.3", "::1"}) EXPECT_TRUE(is_loopback(host)) << host;
  for (const char* host : {"", "0.0.0.0", "::", "128.0.0.1", "localhost.example.org", "127.0.0.1.example.org"}) {
    EXPECT_FALSE(is_loopback(host)) << host;
  }
}

}  // namespace
}  // namespace nibble
