#include "trainer/plan/memory_plan.h"

#include <sys/sysinfo.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "dist/base/error.h"
#include "dist/ranks/device_communicator.h"
#include "trainer/compute/step_schedule.h"
#include "trainer/compute/training_model.h"
#include "trainer/memory/rank_memory.h"
#include "trainer/plan/planned_ranks.h"
#include "trainer/state/state_storage.h"

namespace nibble {
namespace {

uint64_t memory_of_machine() {
  struct sysinfo info {};
  NIBBLE_CHECK(sysinfo(&info) == 0, "sysinfo");
  return uint64_t{info.totalram} * info.mem_unit;
}

uint64_t sum_of(const std::vector<MemoryLine>& lines) {
  uint64_t bytes = 0;
  for (const MemoryLine& line : lines) bytes += line.bytes;
  return bytes;
}

// What HDF5 and the manifest add to the values, from files that were written: of each dataset its header and, in files
// of some size, the alignment; of each tensor its entries in index and manifest.
constexpr uint64_t bytes_a_file = 2048;
constexpr uint64_t bytes_a_dataset = 600;
constexpr uint64_t bytes_a_large_dataset = 2048;  // half of the alignment, on average
constexpr uint64_t large_dataset = uint64_t{1} << 20;
constexpr uint64_t bytes_an_index_entry = 700;

// Returns the size of a rank's file.
uint64_t file_bytes(const CheckpointState& state, int rank) {
  const Layout& layout = state.owned->layout();
  uint64_t bytes = bytes_a_file;
  const auto add = [&](uint64_t values) {
    bytes += values + bytes_a_dataset + (values >= large_dataset ? bytes_a_large_dataset : 0);
  };
  for (const CheckpointArray& array : state.arrays) {
    for (const Slice& slice : array.slices) add(array.bytes_of(layout, slice).bytes());
  }
  for (const ReplicatedArray& array : state.replicated) {
    if (rank == 0) add(array.values.bytes());
  }
  return bytes;
}

// Returns the size of index, configuration and manifest.
uint64_t shared_file_bytes(const CheckpointState& state, const RunConfig& config) {
  const uint64_t tensors = state.owned->layout().tensors().size();
  return 3 * bytes_a_file + resolved_yaml(config).size() +
         (state.arrays.size() * tensors + state.replicated.size()) * bytes_an_index_entry;
}

class Planner {
 public:
  Planner(const RunConfig& config, int ranks, const PlannedDevice* device)
      : config_(config),
        ranks_(ranks),
        kind_(device == nullptr ? DeviceKind::cpu : DeviceKind::cuda),
        schedule_(step_schedule(config, ranks)) {
    config_.train.head_chunk_tokens = settled_head_chunk(config, kind_, /*fresh=*/true);
    model_ = plan_training_model(config_, config_.recipe);
  }

  MemoryPlan plan(const PlannedDevice* device) {
    uint64_t all_ranks = 0;
    for (int rank = 0; rank < ranks_; ++rank) all_ranks += add_rank(rank);
    if (kind_ == DeviceKind::cpu) {
      plan_.needed = all_ranks;
      plan_.available = memory_of_machine();
    } else {
      plan_.reserve = gpu_bytes_of_libraries(ranks_) + bytes_of_late_switch(config_, *model_);
      plan_.needed = plan_.largest + plan_.reserve;
      plan_.available = static_cast<uint64_t>(device->memory_bytes);
    }
    return plan_;
  }

 private:
  // Returns the bytes of the rank.
  uint64_t add_rank(int rank) {
    PlannedRank host(rank, ranks_);
    std::optional<PlannedDeviceRank> on_device;
    if (kind_ == DeviceKind::cuda && ranks_ > 1) on_device.emplace(host);
    Communicator& exchange = on_device ? static_cast<Communicator&>(*on_device) : host;
    RankMemory memory(config_, schedule_, exchange, *model_, kind_);
    StepStates states;
    const std::vector<uint64_t> bounds = boundaries(memory.owned);
    const auto index = static_cast<size_t>(rank);
    const AskedStates asked =
        add_states(states, {.communicator = host,
                            .config = config_,
                            .model = *model_,
                            .schedule = &schedule_,
                            .weights = {.begin = bounds[index], .end = bounds[index + 1], .read = {}, .write = {}},
                            .plans_only = true});
    memory.build(*model_, states);

    std::vector<MemoryLine> lines = memory.lines();
    for (const MemoryLine& line : model_->memory()) lines.push_back(line);
    if (const uint64_t probe = asked.telemetry->own_probe_bytes(); probe > 0) {
      lines.push_back({"telemetry's probe", probe});
    }
    const uint64_t total = sum_of(lines);
    const uint64_t on_host = kind_ == DeviceKind::cpu ? 0 : memory.host_state.planned_bytes();
    if (rank == 0) {
      plan_.lines = std::move(lines);
      plan_.total = total;
      plan_.on_host = on_host;
    }
    if (rank == 0 || total - on_host > plan_.largest) {
      plan_.largest = total - on_host;
      plan_.largest_rank = rank;
    }
    add_checkpoint(memory, states, rank);
    return total;
  }

  void add_checkpoint(const RankMemory& memory, const StepStates& states, int rank) {
    CheckpointState state;
    state.owned = &memory.owned;
    state.arrays = memory.checkpoint_arrays();
    StateWriter writer(state, rank);
    states.save(0, writer);
    plan_.checkpoint_bytes += file_bytes(state, rank);
    if (rank == 0) plan_.checkpoint_bytes += shared_file_bytes(state, config_);
  }

  RunConfig config_;  // as a fresh run settles it
  int ranks_;
  DeviceKind kind_;
  Schedule schedule_;
  std::unique_ptr<LanguageModel> model_;
  MemoryPlan plan_;
};

}  // namespace

MemoryPlan plan_memory(const RunConfig& config, int ranks, const PlannedDevice* device) {
  return Planner(config, ranks, device).plan(device);
}

}  // namespace nibble
