// The main figure of one or more runs, fit for a paper: training losses over tokens, each step faint (for up to six
// runs) and a moving mean over 3 % of the steps, validation losses as marks, and for compared runs a panel with their
// gaps. A loss axis ends where the means are after 5 % of the tokens, because the first steps would press the rest
// together.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "trainer/page/figure_canvas.h"
#include "trainer/report/comparison.h"
#include "trainer/report/seed_comparison.h"

namespace nibble {

// Returns the multiples of 1, 2 or 5 times a power of ten within [low, high], ascending: as many as there are, up to
// `most`. `low` < `high`, both finite.
std::vector<double> round_ticks(double low, double high, int most);

// Returns the mean of the finite values among `span` neighbours of each value. At the beginning there are fewer, as
// many before as behind, so that a falling curve is not lifted there. NaN where no value is finite.
std::vector<double> moving_mean(const std::vector<double>& values, size_t span);

// `pairs` are of `runs`; without any, there is no panel of gaps.
std::string draw_figure(const std::vector<ComparedRun>& runs, const std::vector<ComparedPair>& pairs, FigureKind kind);

// Writes it as what the name says: .svg, .png or .pdf. Throws ExitCode::usage for another name, and
// ExitCode::cannot_create if the file exists and is no figure of nibble's.
void write_figure(const std::filesystem::path& path, const std::vector<ComparedRun>& runs,
                  const std::vector<ComparedPair>& pairs);

}  // namespace nibble
