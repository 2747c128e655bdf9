// What a page shows, as parts of JSON with names. A report holds all of them; a live page asks for those that have
// changed.
//
//   page           title, kind ("report", "compare" or "watch"), names of the runs, pairs of baseline and run
//   run-I          the run's facts, its last steps, validations and events
//   steps-I        its earlier steps (trainer/page/step_columns.h), which change seldom
//   telemetry-I    its heat map (trainer/page/heatmap.h), or null
//   gap-J          the gap of the J-th pair (trainer/page/gap_columns.h)
//   configuration  keys that differ between the runs, or those of one run that are not the default
//   comparison     the table of gaps and the sentences about them
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "trainer/report/comparison.h"
#include "trainer/report/seed_comparison.h"

namespace nibble {

struct ShownRun {
  std::string name;                  // unique in the page
  const ComparedRun* run = nullptr;  // not null
  bool configured = true;            // false: run->config means nothing yet
  std::string message = {};          // why nothing, or nothing new, is shown; "" where all is well
};

// A run and its baseline, as indexes.
struct ShownPair {
  size_t base = 0;
  size_t run = 0;
};

// Returns the names of run directories: their last parts, and where these are equal, as many parts as tell them apart.
// Directories that are equal get a number.
std::vector<std::string> unique_names(const std::vector<std::filesystem::path>& directories);

// Returns how many rows a run's steps may have in a page of so many runs.
size_t most_rows(size_t runs);

nlohmann::json page_part(const std::string& kind, const std::vector<ShownRun>& runs,
                         const std::vector<ShownPair>& pairs);
nlohmann::json run_part(const ShownRun& run, size_t rows);
nlohmann::json steps_part(const ShownRun& run, size_t rows);
nlohmann::json telemetry_part(const ShownRun& run);
nlohmann::json gap_part(const ShownRun& base, const ShownRun& run, size_t rows);
nlohmann::json configuration_part(const std::vector<ShownRun>& runs);
// `seed_gap` is that of pairs of several seeds. Pairs that have no count of tokens in common are named in a sentence.
nlohmann::json comparison_part(const std::vector<ShownRun>& runs, const std::vector<ShownPair>& pairs,
                               const std::optional<SeedGap>& seed_gap);

using PageParts = std::map<std::string, nlohmann::json>;
PageParts all_parts(const std::string& kind, const std::vector<ShownRun>& runs, const std::vector<ShownPair>& pairs,
                    const std::optional<SeedGap>& seed_gap);

}  // namespace nibble
