// What `nibble bench` times, and how: the cases of a group and the machine's peaks take turns, so that what a shared
// machine does meanwhile hits all alike, and medians over the rounds count. On one thread by its processor time, on
// several by wall time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/bench/bench_peaks.h"

namespace nibble {

// What bounds a case from above.
struct BenchLimit {
  enum class Kind : uint8_t {
    none,
    nvfp4_block,   // PeakSequence::nvfp4_block
    bf16_product,  // MachinePeaks::bf16_product()
    bandwidth
  };
  Kind kind = Kind::none;
  double flops = 0;                          // of one run
  double bytes_read = 0, bytes_written = 0;  // of one run: what has to be moved, each pass over it counted
  double working_set = 0;                    // bytes of all that is moved

  // The least time of one run; 0: there is no limit.
  double seconds(const MachinePeaks& peaks) const;
};
std::string_view name_of(BenchLimit::Kind kind);

struct BenchCase : TimedCase {
  BenchLimit limit = {};
  std::string rival = {};  // the case of the same group whose time its own is compared with
};

// Globs as in recipes (quant/recipe/glob.h), in which names of parameters have dots where names of cases have slashes.
bool case_matches(std::string_view globs, std::string_view name);
// What is wrong with the globs; empty: nothing.
std::string case_globs_mistake(std::string_view globs);

// Cases that are timed together, and what keeps their memory.
struct BenchGroup {
  std::string title;
  std::vector<BenchCase> cases;
  std::vector<std::shared_ptr<void>> memory;

  // Cases that do not match the globs go; rivals of those that stay, stay.
  void keep_only(std::string_view globs);
};

struct BenchSettings {
  std::vector<int> threads = {1};  // numbers of compute threads, each measured
  int rounds = 9;
  double sample_seconds = 3e-3;  // at least, of a case in a round
};

struct BenchMeasurement {
  int threads = 1;
  double seconds = 0;  // median, of one run
  double rate = 0;     // in the case's unit
  double limit = 0;    // in the case's unit; 0: none
  double ratio = 0;    // median over the rounds of (rival's seconds) / (own seconds); 0: no rival
  double share() const { return limit > 0 ? rate / limit : 0; }
};

struct BenchResult {
  std::string name;
  std::string unit;
  BenchLimit limit;
  std::string rival;
  std::vector<BenchMeasurement> measurements;  // by number of threads
};

struct BenchGroupResult {
  std::string title;
  std::vector<BenchResult> peaks;
  std::vector<BenchResult> cases;
};

// Leaves the last number of threads set.
BenchGroupResult measure(const BenchGroup& group, PeakMemory& memory, const BenchSettings& settings);

double median_of(std::vector<double> values);

}  // namespace nibble
