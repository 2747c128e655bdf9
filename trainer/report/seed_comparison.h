// Compares two kinds of runs over several seeds: runs of equal seeds form pairs, and the spread of the gaps of the
// pairs gives an interval.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "trainer/report/comparison.h"

namespace nibble {

// A run and the baseline that it is compared with, as indexes into one list of runs.
struct ComparedPair {
  size_t base = 0;
  size_t run = 0;
  Comparison comparison;
};

// The gap in validation loss over pairs, after the last number of tokens at which all pairs validated.
struct SeedGap {
  uint64_t tokens = 0;
  double gap = 0;                   // mean of run - base, nats
  double relative = 0;              // gap / mean loss of the baselines
  std::optional<double> low, high;  // the 95 % interval of Student's t over the pairs; nothing for one pair
};

struct SeedComparison {
  std::vector<ComparedRun> runs;      // base and run of each pair in turn, ascending by seed
  std::vector<ComparedPair> pairs;    // of `runs`
  std::vector<std::string> unpaired;  // directories of runs whose seed the other side lacks
  std::optional<SeedGap> validation;  // nothing if the pairs have no validation in common behind their forks
};

// Throws ExitCode::usage for two runs of one seed on one side, and ExitCode::bad_data if no seed is on both sides.
SeedComparison compare_seeds(const std::vector<ComparedRun>& bases, const std::vector<ComparedRun>& runs);

// Returns the mean of the pairs' gaps and, from two pairs on, the interval mean +- t s / sqrt(n): s is their standard
// deviation, with n - 1 in its denominator, and t that of student_t().
SeedGap seed_gap(const std::vector<Gap>& gaps);

// Returns the t for which Student's distribution with so many degrees of freedom (at least 1) has the probability
// `confidence`, below 1, between -t and t.
double student_t(double confidence, uint64_t degrees);

}  // namespace nibble
