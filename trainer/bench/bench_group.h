// The measurements of `nibble bench`. The cases of a group and the machine's peaks are measured by turns, so that the
// load that others put on a shared machine affects all alike, and results are medians over the rounds. One thread is
// measured in its processor time, several threads in wall time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/bench/bench_peaks.h"

namespace nibble {

// The upper limit of a case's rate.
struct BenchLimit {
  enum class Kind : uint8_t {
    none,
    nvfp4_block,  // PeakSequence::nvfp4_block
    bf16_gemm,    // MachinePeaks::bf16_gemm()
    bandwidth
  };
  Kind kind = Kind::none;
  double flops = 0;                          // of one run
  double bytes_read = 0, bytes_written = 0;  // bytes that one run must move; each pass over the data counts
  double working_set = 0;                    // bytes of all data that is moved

  // Returns the least time of one run in seconds; 0 if there is no limit.
  double seconds(const MachinePeaks& peaks) const;
};
std::string_view name_of(BenchLimit::Kind kind);

struct BenchCase : TimedCase {
  BenchLimit limit = {};
  std::string rival = {};  // the case of the same group whose time its own is compared with
};

// The globs are those of recipes (quant/recipe/glob.h); names of cases have slashes where names of parameters have
// dots.
bool case_matches(std::string_view globs, std::string_view name);
// Returns what is wrong with the globs, or an empty text.
std::string case_globs_mistake(std::string_view globs);

// Cases that are timed together, and the owners of their memory.
struct BenchGroup {
  std::string title;
  std::vector<BenchCase> cases;
  std::vector<std::shared_ptr<void>> memory;

  // Removes the cases that do not match the globs, except the rivals of those that match.
  void keep_only(std::string_view globs);
};

struct BenchSettings {
  std::vector<int> threads = {1};  // numbers of compute threads; each case is measured with each of them
  int rounds = 9;
  double sample_seconds = 3e-3;  // least time that a case takes in a round
};

struct BenchMeasurement {
  int threads = 1;
  double seconds = 0;  // median time of one run
  double rate = 0;     // in the case's unit
  double limit = 0;    // in the case's unit; 0 = none
  double ratio = 0;    // median over the rounds of (rival's seconds) / (own seconds); 0 = no rival
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

// Measures all cases of a group. The number of compute threads stays at the last of settings.threads.
BenchGroupResult measure(const BenchGroup& group, PeakMemory& memory, const BenchSettings& settings);
}  // namespace nibble
