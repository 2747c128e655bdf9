// Draws a comparison of runs as one HTML file, which includes uPlot and needs no network.
#pragma once

#include <string>
#include <vector>

#include "trainer/report/comparison.h"
#include "trainer/report/seed_comparison.h"

namespace nibble {

// One curve of a run, ready to draw: losses over the run's own tokens.
struct Curve {
  std::string name;
  std::vector<double> tokens;
  std::vector<double> loss;
  std::vector<double> smoothed_loss;
  std::vector<double> validation_tokens;
  std::vector<double> validation_loss;
};

// The gap of a run to its baseline, where both have the same number of tokens.
struct GapCurve {
  size_t run = 0;  // as an index into the report's runs
  std::vector<double> tokens;
  std::vector<double> percent;  // smoothed
};

struct Report {
  std::string title;
  std::vector<ComparedRun> runs;
  std::vector<ComparedPair> pairs;  // of `runs`
  std::vector<Curve> curves;        // of `runs`
  std::vector<GapCurve> gaps;       // of `pairs`
  std::optional<SeedGap> seed_gap;  // of pairs of equal seeds
};

Report make_report(const std::vector<ComparedRun>& runs, const std::vector<ComparedPair>& pairs);
std::string report_html(const Report& report);

}  // namespace nibble
