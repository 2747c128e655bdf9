// What `nibble compare` prints.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "trainer/report/seed_comparison.h"

namespace nibble {

std::string comparison_table(const ComparedRun& base, const ComparedRun& run, const Comparison& comparison);
nlohmann::json comparison_json(const ComparedRun& base, const ComparedRun& run, const Comparison& comparison);

std::string seed_table(const SeedComparison& comparison);
nlohmann::json seed_json(const SeedComparison& comparison);

// Sentences that the terminal and the page both have.
std::string one_seed_text();
// Returns "" if there is nothing to say.
std::string fork_text(const Comparison& comparison);
std::string equal_loss_text(const ComparedRun& base, const ComparedRun& run, const Comparison& comparison);
// Returns a text such as "+0.0124 nats (95 % interval +0.0100 to +0.0148, 3 seeds)".
std::string seed_gap_text(const SeedGap& gap, size_t seeds);

}  // namespace nibble
