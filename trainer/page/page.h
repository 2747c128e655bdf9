// The page of `nibble report`, `nibble compare` and `nibble watch`: one HTML file with its style, its scripts and its
// data, which needs no network. Its own files are in trainer/page/assets.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "trainer/page/page_parts.h"

namespace nibble {

struct PageFrame {
  std::string title;
  std::string nonce;  // names the scripts that the page's content security policy lets run
  bool live = false;  // the page asks its server for what is new
};

// Returns the HTML. `data` is the JSON text {name of a part: {"tag": text, "data": the part}, ...}.
std::string page_html(const PageFrame& frame, const std::string& data);

// Returns the content security policy of a page: only scripts with the nonce run, and the page may ask nobody but, if
// it is live, its own server.
std::string content_security_policy(const PageFrame& frame);

// Returns the page of runs that are no longer followed. `kind` is "report" or "compare".
std::string report_page(const std::string& kind, const std::vector<ComparedRun>& runs,
                        const std::vector<ShownPair>& pairs, const std::optional<SeedGap>& seed_gap = {});

// Writes a page. Throws ExitCode::cannot_create if the file exists and is no page of nibble's.
void write_page(const std::filesystem::path& path, const std::string& html);

}  // namespace nibble
