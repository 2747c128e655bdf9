// The profile of a run (profile.every): the shares of the step time by operator family, and a trace of the first steps
// in the run directory's profile.json. chrome://tracing and ui.perfetto.dev show the trace, with each rank as a
// process.
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
#include "trainer/config/config_override.h"

namespace nibble {

// Returns the overrides with those of --profile in front, which is short for --set profile.every=50. An explicit --set
// comes after it and takes precedence.
std::vector<ConfigOverride> with_profile(bool profile, const std::vector<ConfigOverride>& overrides);

struct ProfileRecord {
  uint64_t first_step = 0, last_step = 0;
  double seconds = 0;  // total time of these steps, mean over the ranks
  // Shares of the time by OperatorFamily, mean over the ranks. They add up to 1.
  std::array<double, operator_families> shares{};

  double share(OperatorFamily family) const { return shares[static_cast<size_t>(family)]; }
};

// Returns a text such as "steps 3-20 (1.52 s each): gemm nvfp4 41.3 %, attention 20.1 %, ...". The largest share comes
// first, and families without time are left out.
std::string describe(const ProfileRecord& record);
// Returns the "profile" line of metrics.jsonl.
nlohmann::json to_event(const ProfileRecord& record);

class RunProfile {
 public:
  static constexpr uint64_t warmup_steps = 2;  // not profiled: memory is touched first and threads start in them
  static constexpr uint64_t traced_steps = 20;
  static constexpr int traced_ranks = 8;
  static constexpr size_t traced_events = size_t{1} << 16;  // for each rank: at most about seven megabytes of JSON

  // Records come after steps that are divisible by `every`, and at the end. `directory` is that of the run.
  RunProfile(Communicator& communicator, uint64_t every, std::filesystem::path directory, DeviceKind device);

  void begin_step(uint64_t step);
  // Collective. If a record is due, returns that of the steps since the last one, on every rank.
  std::optional<ProfileRecord> end_step(uint64_t step);
  // Collective; call it after the last step. Returns a record of all profiled steps, if there were any, and writes the
  // trace if it has not been written yet.
  std::optional<ProfileRecord> finish();

 private:
  ProfileRecord record_since(const ProfileTotals& before, uint64_t first_step) const;
  void write_trace();
  std::string trace_events() const;

  Communicator& communicator_;
  uint64_t every_;
  std::filesystem::path directory_;
  ProfileRecorder recorder_;
  uint64_t steps_ = 0;  // number of steps that this process has begun
  uint64_t first_step_ = 0, last_step_ = 0;
  uint64_t first_of_record_ = 0;
  ProfileTotals recorded_;  // totals at the last record
  std::vector<uint64_t> traced_;
  bool tracing_;
  bool recording_ = false;
  bool written_ = false;
};

}  // namespace nibble
