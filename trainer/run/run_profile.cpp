#include "trainer/run/run_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>
#include <utility>

#include "dist/base/file.h"
#include "dist/base/log.h"

namespace nibble {
namespace {

OperatorFamily family_at(size_t index) {
  return static_cast<OperatorFamily>(index);
}

// Converts nanoseconds to microseconds, the unit of the trace format.
std::string microseconds(int64_t nanoseconds) {
  return fmt::format("{}.{:03}", nanoseconds / 1000, nanoseconds % 1000);
}

}  // namespace

std::vector<ConfigOverride> with_profile(bool profile, const std::vector<ConfigOverride>& overrides) {
  std::vector<ConfigOverride> all;
  if (profile) all.push_back({.key = "profile.every", .value = "50", .source = "--profile"});
  all.insert(all.end(), overrides.begin(), overrides.end());
  return all;
}

std::string describe(const ProfileRecord& record) {
  std::vector<size_t> order(operator_families);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return record.shares[a] > record.shares[b]; });
  const double steps = static_cast<double>(record.last_step - record.first_step + 1);
  std::string text =
      fmt::format("steps {}-{} ({:.3g} s each): ", record.first_step, record.last_step, record.seconds / steps);
  const char* separator = "";
  for (const size_t index : order) {
    if (record.shares[index] == 0) continue;
    text += fmt::format("{}{} {:.1f} %", separator, name_of(family_at(index)), 100 * record.shares[index]);
    separator = ", ";
  }
  return text;
}

nlohmann::json to_event(const ProfileRecord& record) {
  nlohmann::json shares = nlohmann::json::object();
  for (size_t i = 0; i < operator_families; ++i) shares[std::string(name_of(family_at(i)))] = record.shares[i];
  return {{"event", "profile"},
          {"first_step", record.first_step},
          {"step", record.last_step},
          {"seconds", record.seconds},
          {"shares", shares}};
}

RunProfile::RunProfile(Communicator& communicator, uint64_t every, std::filesystem::path directory, DeviceKind device)
    : communicator_(communicator),
      every_(every),
      directory_(std::move(directory)),
      recorder_(communicator.rank() < traced_ranks ? traced_events : 0, device),
      tracing_(communicator.rank() < traced_ranks) {}

void RunProfile::begin_step(uint64_t step) {
  if (++steps_ <= warmup_steps) return;
  if (first_step_ == 0) first_step_ = step;
  if (first_of_record_ == 0) first_of_record_ = step;
  recording_ = true;
  tracing_ = tracing_ && traced_.size() < traced_steps;
  recorder_.begin("step", tracing_);
}

std::optional<ProfileRecord> RunProfile::end_step(uint64_t step) {
  if (!recording_) return std::nullopt;
  recording_ = false;
  last_step_ = step;
  tracing_ = recorder_.end() && tracing_;
  if (tracing_) traced_.push_back(step);
  if (steps_ == warmup_steps + traced_steps) write_trace();
  if (step % every_ != 0) return std::nullopt;
  const ProfileRecord record = record_since(recorded_, first_of_record_);
  recorded_ = recorder_.totals();
  first_of_record_ = 0;
  return record;
}

std::optional<ProfileRecord> RunProfile::finish() {
  if (first_step_ == 0) return std::nullopt;
  write_trace();
  return record_since(ProfileTotals(), first_step_);
}

ProfileRecord RunProfile::record_since(const ProfileTotals& before, uint64_t first_step) const {
  const auto ranks = static_cast<size_t>(communicator_.size());
  std::vector<int64_t> spent(ranks * operator_families);
  int64_t* own = spent.data() + static_cast<size_t>(communicator_.rank()) * operator_families;
  for (size_t i = 0; i < operator_families; ++i) {
    own[i] = recorder_.totals().nanoseconds[i] - before.nanoseconds[i];
  }
  std::vector<uint64_t> offsets(ranks + 1);
  for (size_t i = 0; i <= ranks; ++i) offsets[i] = i * operator_families * sizeof(int64_t);
  communicator_.all_gather(std::as_writable_bytes(std::span(spent)), offsets);

  ProfileRecord record;
  record.first_step = first_step;
  record.last_step = last_step_;
  const auto total = static_cast<double>(std::accumulate(spent.begin(), spent.end(), int64_t{0}));
  for (size_t i = 0; i < spent.size(); ++i) {
    record.shares[i % operator_families] += static_cast<double>(spent[i]) / total;
  }
  record.seconds = total / 1e9 / static_cast<double>(ranks);
  return record;
}

// Returns this rank's part of the trace's list of events.
std::string RunProfile::trace_events() const {
  const int rank = communicator_.rank();
  if (rank >= traced_ranks) return {};
  std::string text = fmt::format(R"({}{{"name":"process_name","ph":"M","pid":{},"tid":0,"args":{{"name":"rank {}"}}}})",
                                 rank == 0 ? "" : ",\n", rank, rank);
  int64_t step_end = 0;
  size_t step = 0;
  for (const ProfileEvent& event : recorder_.events()) {
    text += fmt::format(R"(,{}{{"name":"{}","cat":"{}","ph":"X","pid":{},"tid":0,"ts":{},"dur":{})", '\n', event.name,
                        name_of(event.family), rank, microseconds(event.begin), microseconds(event.end - event.begin));
    if (event.begin >= step_end && step < traced_.size()) {
      text += fmt::format(R"(,"args":{{"step":{}}})", traced_[step++]);
      step_end = event.end;
    }
    text += "}";
  }
  return text;
}

void RunProfile::write_trace() {
  if (written_) return;
  written_ = true;
  const std::string own = trace_events();
  std::string events;
  for (int rank = 0; rank < std::min(communicator_.size(), traced_ranks); ++rank) {
    const std::string part = broadcast_string(communicator_, own, rank);
    if (communicator_.rank() == 0) events += part;
  }
  on_leader(communicator_, [&] {
    const std::filesystem::path path = directory_ / "profile.json";
    write_file(path, fmt::format("{{\"displayTimeUnit\":\"ms\",\"otherData\":{{\"nibble\":\"{}\",\"ranks\":{}}},"
                                 "\n\"traceEvents\":[\n{}\n]}}\n",
                                 NIBBLE_VERSION, communicator_.size(), events));
    log_info("profile    {} steps are in {}: open it in ui.perfetto.dev or chrome://tracing", traced_.size(),
             path.string());
  });
}

}  // namespace nibble
