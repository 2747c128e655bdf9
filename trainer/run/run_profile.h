// The profile of a run (profile.every): the shares of step time by operator family, and a trace of the first steps in
// the run directory's profile.json, which chrome://tracing and ui.perfetto.dev show: a process a rank.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "dist/device/profile.h"
#include "dist/ranks/communicator.h"

namespace nibble {

// --profile is short for --set profile.every=50; an explicit --set comes after it and wins.
std::vector<std::string> with_profile(bool profile, const std::vector<std::string>& overrides);

struct ProfileRecord {
  uint64_t first_step = 0, last_step = 0;
  double seconds = 0;  // of these steps, mean over the ranks
  // By OperatorFamily, mean over the ranks. They add up to 1.
  std::array<double, operator_families> shares{};

  double share(OperatorFamily family) const { return shares[static_cast<size_t>(family)]; }
};

// "steps 3-20 (1.52 s each): gemm nvfp4 41.3 %, attention 20.1 %, ...": largest first, without families that are
// absent.
std::string describe(const ProfileRecord& record);
// The "profile" line of metrics.jsonl.
nlohmann::json to_event(const ProfileRecord& record);

class RunProfile {
 public:
  static constexpr uint64_t warmup_steps = 2;  // of this process: first touch of memory, threads that start
  static constexpr uint64_t traced_steps = 20;
  static constexpr int traced_ranks = 8;
  static constexpr size_t traced_events = size_t{1} << 16;  // of a rank: at most some seven megabytes of JSON

  // Records come every `every` steps (those divisible by it) and at the end. directory: of the run.
  RunProfile(Communicator& communicator, uint64_t every, std::filesystem::path directory, DeviceKind device);

  void begin_step(uint64_t step);
  // Collective. Of the steps since the last record, where one is due: on every rank.
  std::optional<ProfileRecord> end_step(uint64_t step);
  // Collective, after the last step: of all profiled steps, if there were any. Writes the trace if that is not done.
  std::optional<ProfileRecord> finish();

 private:
  ProfileRecord record_since(const ProfileTotals& before, uint64_t first_step) const;
  void write_trace();
  std::string trace_events() const;

  Communicator& communicator_;
  uint64_t every_;
  std::filesystem::path directory_;
  ProfileRecorder recorder_;
  uint64_t steps_ = 0;  // of this process, so far
  uint64_t first_step_ = 0, last_step_ = 0;
  uint64_t first_of_record_ = 0;
  ProfileTotals recorded_;  // what earlier records have told
  std::vector<uint64_t> traced_;
  bool tracing_;
  bool recording_ = false;
  bool written_ = false;
};

}  // namespace nibble
