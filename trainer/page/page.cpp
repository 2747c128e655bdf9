#include "trainer/page/page.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/hash.h"
#include "trainer/page/page_assets.h"
#include "trainer/report/html_text.h"

namespace nibble {

namespace {

// Replaces each @WORD@ of the skeleton, in one pass, so that what is put in is not looked at again.
std::string fill_in(std::string_view skeleton, const std::map<std::string, std::string_view>& words) {
  std::string text;
  for (size_t at = 0; at < skeleton.size();) {
    const size_t begin = skeleton.find('@', at);
    if (begin == std::string_view::npos) return text.append(skeleton.substr(at));
    const size_t end = skeleton.find('@', begin + 1);
    NIBBLE_CHECK(end != std::string_view::npos, "a word of the page's skeleton has no end");
    text.append(skeleton.substr(at, begin - at));
    text.append(words.at(std::string(skeleton.substr(begin + 1, end - begin - 1))));
    at = end + 1;
  }
  return text;
}

}  // namespace

std::string content_security_policy(const PageFrame& frame) {
  return "default-src 'none'; script-src 'nonce-" + frame.nonce + "'; style-src 'nonce-" + frame.nonce +
         "'; img-src data:; base-uri 'none'; form-action 'none'; connect-src " + (frame.live ? "'self'" : "'none'");
}

std::string page_html(const PageFrame& frame, const std::string& data) {
  const std::string title = escaped(frame.title);
  const std::string policy = escaped(content_security_policy(frame));
  const std::string json = script_text(data);
  return fill_in(page_skeleton, {{"TITLE", title},
                                 {"POLICY", policy},
                                 {"NONCE", frame.nonce},
                                 {"LIVE", frame.live ? "true" : "false"},
                                 {"UPLOT_STYLE", uplot_style},
                                 {"PAGE_STYLE", page_style},
                                 {"UPLOT_SCRIPT", uplot_script},
                                 {"PAGE_SCRIPT", page_script},
                                 {"DATA", json}});
}

std::string report_page(const std::string& kind, const std::vector<ComparedRun>& runs,
                        const std::vector<ShownPair>& pairs, const std::optional<SeedGap>& seed_gap) {
  std::vector<std::filesystem::path> directories;
  for (const ComparedRun& run : runs) directories.push_back(run.directory);
  const std::vector<std::string> names = unique_names(directories);
  std::vector<ShownRun> shown;
  for (size_t i = 0; i < runs.size(); ++i) shown.push_back({.name = names[i], .run = &runs[i]});
  nlohmann::json data;
  for (auto& [name, part] : all_parts(kind, shown, pairs, seed_gap)) {
    data[name] = {{"tag", ""}, {"data", std::move(part)}};
  }
  // Whoever chose the text of the data cannot know its hash beforehand, and so cannot write a script that would run.
  const std::string text = json_text(data);
  const std::string nonce = to_hex(hash128(text));
  const std::string title = data["page"]["data"]["title"];
  return page_html({.title = title + " - nibble", .nonce = nonce, .live = false}, text);
}

void write_page(const std::filesystem::path& path, const std::string& html) {
  constexpr std::string_view mark = R"(<meta name="generator" content="nibble">)";
  constexpr size_t opening = 1000;  // bytes of a page within which its mark stands
  if (std::filesystem::exists(path) &&
      (!std::filesystem::is_regular_file(path) || read_stream(path, opening).find(mark) == std::string::npos)) {
    throw Error(ExitCode::cannot_create, fmt::format("{} exists, and is no page of nibble's", path.string()),
                "remove it, or give another name");
  }
  write_file(path, html);
}

}  // namespace nibble
