#include "trainer/page/live_page.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "dist/base/hash.h"
#include "dist/base/stopwatch.h"
#include "trainer/page/page.h"
#include "trainer/report/html_text.h"

namespace nibble {

namespace {

constexpr std::chrono::milliseconds patience{500};

}  // namespace

LivePage::LivePage(const std::vector<std::filesystem::path>& directories) {
  std::vector<std::filesystem::path> found;
  for (const auto& directory : directories) {
    runs_.emplace_back(directory);
    found.push_back(runs_.back().run().directory);
    if (runs_.size() > 1) pairs_.push_back({.base = 0, .run = runs_.size() - 1});
  }
  names_ = unique_names(found);
}

std::string LivePage::html(const std::string& nonce) {
  const std::lock_guard lock(mutex_);
  refresh();
  const std::string title = nlohmann::json::parse(parts_.at("page").text).at("title");
  return page_html({.title = title + " - nibble", .nonce = nonce, .live = true}, parts_text({}));
}

std::string LivePage::news(const std::set<std::string, std::less<>>& have) {
  const std::lock_guard lock(mutex_);
  refresh();
  return fmt::format(R"({{"now":{:.3f},"parts":{}}})", seconds_since_1970(), parts_text(have));
}

std::string LivePage::parts_text(const std::set<std::string, std::less<>>& have) const {
  std::string text;
  for (const auto& [name, part] : parts_) {
    if (have.contains(part.tag)) continue;
    text += fmt::format(R"({}"{}":{{"tag":"{}","data":{}}})", text.empty() ? "" : ",", name, part.tag, part.text);
  }
  return "{" + text + "}";
}

void LivePage::put(const std::string& name, const nlohmann::json& data) {
  std::string text = json_text(data);
  parts_[name] = {.tag = to_hex(hash64(text, hash64(name))), .text = std::move(text)};
}

ShownRun LivePage::shown(size_t index) const {
  const RunFollower& run = runs_[index];
  return {.name = names_[index], .run = &run.run(), .configured = run.configured(), .message = run.message()};
}

void LivePage::refresh() {
  const auto now = std::chrono::steady_clock::now();
  if (read_at_ && now - *read_at_ < patience) return;
  const bool first = !read_at_;
  std::vector<bool> changed;
  size_t validations = 0;
  size_t begun = 0;
  for (RunFollower& run : runs_) {
    changed.push_back(run.refresh() || first);
    validations += run.run().history.validations.size();
    if (!run.run().history.steps.empty()) ++begun;
  }
  read_at_ = std::chrono::steady_clock::now();
  const size_t rows = most_rows(runs_.size());
  std::vector<ShownRun> all;
  bool any = false;
  for (size_t i = 0; i < runs_.size(); ++i) {
    all.push_back(shown(i));
    if (!changed[i]) continue;
    any = true;
    put(fmt::format("run-{}", i), run_part(all[i], rows));
    put(fmt::format("steps-{}", i), steps_part(all[i], rows));
    put(fmt::format("telemetry-{}", i), telemetry_part(all[i]));
  }
  if (!any) return;
  for (size_t i = 0; i < pairs_.size(); ++i) {
    const auto [base, run] = pairs_[i];
    if (changed[base] || changed[run]) put(fmt::format("gap-{}", i), gap_part(all[base], all[run], rows));
  }
  if (first) put("page", page_part("watch", all, pairs_));
  put("configuration", configuration_part(all));
  // The table of gaps is about the last validations, and making it takes longer than the rest.
  const std::pair compared{begun, validations};
  if (first || compared != compared_) put("comparison", comparison_part(all, pairs_, std::nullopt));
  compared_ = compared;
}

}  // namespace nibble
