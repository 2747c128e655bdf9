// Draws a comparison of runs: as one HTML file, which includes uPlot and needs no network, and as an SVG.
#pragma once

#include <string>
#include <vector>

#include "trainer/report/comparison.h"

namespace nibble {

// One curve of a run, ready to draw.
struct Curve {
  std::string name;
  std::vector<double> tokens;
  std::vector<double> loss;
  std::vector<double> smoothed_loss;
  std::vector<double> validation_tokens;
  std::vector<double> validation_loss;
  std::vector<double> gap_percent;  // smoothed, against the baseline; empty for the baseline itself
};

struct Report {
  std::string title;
  std::vector<Curve> curves;            // the baseline first; all curves have the steps that every run made
  std::vector<ComparedRun> runs;        // in the order of `curves`
  std::vector<Comparison> comparisons;  // of runs[1..] with runs[0]
};

Report make_report(const std::vector<ComparedRun>& runs, const std::vector<Comparison>& comparisons);
std::string report_html(const Report& report);
std::string report_svg(const Report& report);
// Returns the table that `nibble compare` prints.
std::string comparison_table(const ComparedRun& base, const ComparedRun& run, const Comparison& comparison);

}  // namespace nibble
