// The page of runs that are training, kept up to date: which of its parts have changed since somebody last asked.
#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "trainer/page/page_parts.h"
#include "trainer/page/run_follower.h"

namespace nibble {

// May be asked by several threads.
class LivePage {
 public:
  explicit LivePage(const std::vector<std::filesystem::path>& directories);

  // Both read first what the runs have written, unless that was done less than half a second ago.
  // Returns the HTML. `nonce` is one that nobody can guess.
  std::string html(const std::string& nonce);
  // Returns JSON {"now": seconds since 1970, "parts": {name: {"tag": text, "data": the part}, ...}} of the parts whose
  // tags are not in `have`. A tag belongs to the contents of a part.
  std::string news(const std::set<std::string, std::less<>>& have);

 private:
  struct Part {
    std::string tag, text;
  };
  void refresh();
  void put(const std::string& name, const nlohmann::json& data);
  ShownRun shown(size_t index) const;
  std::string parts_text(const std::set<std::string, std::less<>>& have) const;

  std::mutex mutex_;
  std::vector<RunFollower> runs_;
  std::vector<std::string> names_;
  std::vector<ShownPair> pairs_;
  std::map<std::string, Part> parts_;
  std::optional<std::chrono::steady_clock::time_point> read_at_;
  std::pair<size_t, size_t> compared_;  // runs with steps, and validations of all runs, when the comparison was made
};

}  // namespace nibble
