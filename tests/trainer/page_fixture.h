// Runs with losses, without files.
#pragma once

#include <string>
#include <vector>

#include "trainer/report/comparison.h"

namespace nibble {

// A run of 100 tokens and two seconds a step.
inline ComparedRun run_with_losses(const std::string& directory, const std::vector<double>& losses) {
  const std::filesystem::path path = directory;
  ComparedRun run{.directory = path, .name = path.filename(), .config = {}, .history = {}};
  for (size_t i = 0; i < losses.size(); ++i) {
    run.history.steps.push_back({.step = i + 1,
                                 .tokens = (i + 1) * 100,
                                 .loss = losses[i],
                                 .grad_norm = 1,
                                 .tokens_per_second = 50,
                                 .seconds = 2.0 * static_cast<double>(i + 1)});
  }
  return run;
}

}  // namespace nibble
