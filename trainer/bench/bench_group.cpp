#include "trainer/bench/bench_group.h"

#include <algorithm>
#include <set>

#include "dist/device/thread_pool.h"
#include "quant/recipe/glob.h"

namespace nibble {
namespace {

std::string with_dots(std::string_view text) {
  std::string result(text);
  std::replace(result.begin(), result.end(), '/', '.');
  return result;
}

BenchResult empty_result(const TimedCase& timed, const BenchLimit& limit, const std::string& rival) {
  return {.name = timed.name, .unit = std::string(timed.unit), .limit = limit, .rival = rival, .measurements = {}};
}

void measure_with(int threads, const BenchGroup& group, PeakMemory& memory, const BenchSettings& settings,
                  BenchGroupResult& result) {
  set_compute_threads(threads);
  const std::vector<TimedCase> peaks = peak_cases(memory);
  std::vector<TimedCase> all = peaks;
  all.insert(all.end(), group.cases.begin(), group.cases.end());
  const std::vector<std::vector<double>> seconds =
      time_by_turns(all, {.rounds = settings.rounds, .sample_seconds = settings.sample_seconds});

  std::vector<double> medians;
  medians.reserve(seconds.size());
  for (const std::vector<double>& own : seconds) medians.push_back(median_of(own));
  const auto rate = [&](size_t i) { return medians[i] > 0 ? all[i].work * 1e-9 / medians[i] : 0.0; };
  for (size_t i = 0; i < peaks.size(); ++i) {
    result.peaks[i].measurements.push_back({.threads = threads, .seconds = medians[i], .rate = rate(i)});
  }
  const MachinePeaks machine = peaks_of(peaks, std::span(medians).first(peaks.size()));
  for (size_t c = 0; c < group.cases.size(); ++c) {
    const BenchCase& timed = group.cases[c];
    const size_t i = peaks.size() + c;
    const double least = timed.limit.seconds(machine);
    BenchMeasurement measurement{.threads = threads, .seconds = medians[i], .rate = rate(i)};
    if (least > 0) measurement.limit = timed.work * 1e-9 / least;
    const auto rival = std::find_if(group.cases.begin(), group.cases.end(),
                                    [&](const BenchCase& other) { return other.name == timed.rival; });
    if (rival != group.cases.end()) {
      const auto r = peaks.size() + static_cast<size_t>(rival - group.cases.begin());
      measurement.ratio = median_ratio(seconds[r], seconds[i]);
    }
    result.cases[c].measurements.push_back(measurement);
  }
}

}  // namespace

std::string_view name_of(BenchLimit::Kind kind) {
  switch (kind) {
    case BenchLimit::Kind::none: return "none";
    case BenchLimit::Kind::nvfp4_block: return "nvfp4 block arithmetic";
    case BenchLimit::Kind::bf16_gemm: return "bf16 product arithmetic";
    case BenchLimit::Kind::bandwidth: return "bandwidth";
  }
  return "?";
}

double BenchLimit::seconds(const MachinePeaks& peaks) const {
  const auto at_rate = [&](double rate) { return rate > 0 ? flops / rate : 0.0; };
  switch (kind) {
    case Kind::none: return 0;
    case Kind::nvfp4_block: return at_rate(peaks.flops_of(PeakSequence::nvfp4_block));
    case Kind::bf16_gemm: return at_rate(peaks.bf16_gemm());
    case Kind::bandwidth: return peaks.bandwidth_of(working_set).seconds(bytes_read, bytes_written);
  }
  return 0;
}

bool case_matches(std::string_view globs, std::string_view name) {
  return glob_matches(with_dots(globs), with_dots(name));
}

std::string case_globs_mistake(std::string_view globs) {
  return glob_mistake(with_dots(globs));
}

void BenchGroup::keep_only(std::string_view globs) {
  std::set<std::string> wanted;
  for (const BenchCase& timed : cases) {
    if (!case_matches(globs, timed.name)) continue;
    wanted.insert(timed.name);
    if (!timed.rival.empty()) wanted.insert(timed.rival);
  }
  std::erase_if(cases, [&](const BenchCase& timed) { return !wanted.contains(timed.name); });
}

BenchGroupResult measure(const BenchGroup& group, PeakMemory& memory, const BenchSettings& settings) {
  BenchGroupResult result{.title = group.title, .peaks = {}, .cases = {}};
  for (const TimedCase& peak : peak_cases(memory)) result.peaks.push_back(empty_result(peak, {}, {}));
  for (const BenchCase& timed : group.cases) result.cases.push_back(empty_result(timed, timed.limit, timed.rival));
  for (const int threads : settings.threads) measure_with(threads, group, memory, settings, result);
  return result;
}

}  // namespace nibble
