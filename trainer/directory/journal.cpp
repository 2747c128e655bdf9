#include "trainer/directory/journal.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "dist/device/thread_pool.h"
#include "dist/ranks/mpi_communicator.h"
#include "dist/watch/heartbeat.h"
#include "quant/isa/instruction_set.h"
#include "trainer/compute/run_device.h"
#include "trainer/config/build_facts.h"
#include "trainer/report/json_lines.h"

namespace nibble {

namespace {

constexpr const char* file_name = "journal.jsonl";

// Collective. Returns the machines of the run in the order of their first ranks, each with its number of ranks.
nlohmann::json machines_of(Communicator& communicator) {
  std::array<char, 256> own{};
  const std::string name = host_name();
  std::copy_n(name.begin(), std::min(name.size(), own.size() - 1), own.begin());
  nlohmann::json machines = nlohmann::json::array();
  for (const std::array<char, 256>& each : gather_each(communicator, own)) {
    const auto known =
        std::ranges::find_if(machines, [&](const auto& machine) { return machine["name"] == each.data(); });
    if (known == machines.end()) {
      machines.push_back({{"name", each.data()}, {"ranks", 1}});
    } else {
      (*known)["ranks"] = (*known)["ranks"].get<int>() + 1;
    }
  }
  return machines;
}

// Collective. Returns a line with what computes from here on.
nlohmann::json entry(Communicator& communicator, const char* kind, uint64_t step, const RunConfig& config) {
  return {{"kind", kind},
          {"step", step},
          {"nibble", NIBBLE_VERSION},
          {"commit", build_facts.commit},
          {"cuda", build_facts.cuda},
          {"mpi", mpi_library()},
          {"device", device_of(config) == DeviceKind::cpu ? "cpu" : "cuda"},
          {"instruction_set", name_of(instruction_set())},
          {"ranks", communicator.size()},
          {"threads_per_rank", compute_threads()},
          {"machines", machines_of(communicator)}};
}

void append(const std::filesystem::path& directory, const std::vector<nlohmann::json>& lines) {
  JsonLines journal(directory / file_name);
  for (const nlohmann::json& line : lines) journal.write(line);
  journal.sync();
}

}  // namespace

void record_start(Communicator& communicator, const std::filesystem::path& directory, const RunConfig& config) {
  const nlohmann::json start = entry(communicator, "start", 0, config);
  on_leader(communicator, [&] { append(directory, {start}); });
}

void record_fork(const std::filesystem::path& directory, const std::filesystem::path& source,
                 const CheckpointInfo& checkpoint, const std::string& manifest_hash) {
  nlohmann::json fork = {{"kind", "fork"}, {"step", checkpoint.step}, {"run", source.string()}};
  fork["checkpoint"] = checkpoint.directory.filename().string();
  fork["checkpoint_hash"] = manifest_hash;
  fork["tokens"] = checkpoint.tokens;
  fork["next_sample"] = checkpoint.data.next_sample;
  fork["saved_by"] = {
      {"nibble", checkpoint.nibble_version}, {"commit", checkpoint.commit}, {"ranks", checkpoint.ranks}};
  fork["nibble"] = NIBBLE_VERSION;
  fork["commit"] = build_facts.commit;
  append(directory, {fork});
}

void record_resume(Communicator& communicator, const std::filesystem::path& directory, const RunConfig& config,
                   const CheckpointInfo& checkpoint, const std::vector<ConfigDifference>& overrides,
                   const std::vector<uint64_t>& abandoned) {
  nlohmann::json resume = entry(communicator, "resume", checkpoint.step, config);
  resume["checkpoint"] = checkpoint.directory.filename().string();
  resume["tokens"] = checkpoint.tokens;
  resume["next_sample"] = checkpoint.data.next_sample;
  if (!abandoned.empty()) resume["abandoned"] = abandoned;
  std::vector<nlohmann::json> lines{std::move(resume)};
  for (const ConfigDifference& override : overrides) {
    lines.push_back({{"kind", "override"},
                     {"step", checkpoint.step},
                     {"key", override.key},
                     {"from", override.before},
                     {"to", override.after}});
  }
  on_leader(communicator, [&] { append(directory, lines); });
}

void record_control(const std::filesystem::path& directory, uint64_t step, const nlohmann::json& what) {
  nlohmann::json line = {{"kind", "control"}, {"step", step}};
  line.update(what);
  append(directory, {line});
}

void record_stop(const std::filesystem::path& directory, uint64_t step, const std::string& reason) {
  append(directory, {{{"kind", "stop"}, {"step", step}, {"reason", reason}}});
}

bool journal_has_beginning(const std::filesystem::path& directory) {
  std::ifstream file(directory / file_name, std::ios::binary);
  for (std::string line; std::getline(file, line);) {
    const nlohmann::json object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) continue;
    if (const std::string kind = object.value("kind", ""); kind == "start" || kind == "fork") return true;
  }
  return false;
}

}  // namespace nibble
