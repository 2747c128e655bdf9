// Writes a checkpoint: every rank writes its own file, rank 0 writes the index, the configuration and the manifest, and
// a rename makes the complete directory visible.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include "dist/base/error.h"
#include "dist/base/file_descriptor.h"
#include "dist/base/file_system.h"
#include "dist/base/log.h"
#include "quant/tensor/tensor_copy.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/hdf5_file.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/snapshot.h"
#include "trainer/checkpoint/stored_parts.h"
#include "trainer/config/build_facts.h"

namespace nibble {

namespace {

// The report of one rank to all others. It is sent as plain bytes.
struct RankReport {
  uint64_t bytes = 0;  // first an upper bound of the size of the rank's file, then its size
  std::array<char, 32> hash{};
};

// Returns an upper bound of the size of this rank's file. It includes alignment and metadata of every dataset and the
// metadata of the file.
uint64_t largest_file_bytes(const CheckpointState& state) {
  constexpr uint64_t per_dataset = 8192;
  uint64_t bytes = (uint64_t{1} << 20) + state.config_yaml.size();
  for (const CheckpointArray& array : state.arrays) {
    bytes += per_dataset * (array.slices.size() + state.owned->layout().tensors().size());
    for (const Slice& slice : array.slices) bytes += array.bytes_of(state.owned->layout(), slice).bytes();
  }
  for (const ReplicatedArray& array : state.replicated) bytes += array.values.bytes() + 2 * per_dataset;
  return bytes;
}

// Checks that every element has one owner, and that this rank has the values of what it owns.
void check_state(const CheckpointState& state, const Communicator& communicator) {
  const Placement& owned = *state.owned;
  NIBBLE_CHECK(owned.ranks() == communicator.size(), "the placement is for another number of ranks");
  for (const Share& share : owned.shares()) NIBBLE_CHECK(share.ranks.count == 1, "a share has one owner");
  const std::vector<TensorLayout>& tensors = owned.layout().tensors();
  for (const CheckpointArray& array : state.arrays) {
    auto slice = array.slices.begin();
    for (const Slice& own : owned.slices(communicator.rank())) {
      if (!array.covers(tensors[own.tensor])) continue;
      const bool is_there =
          slice != array.slices.end() && slice->tensor == own.tensor && slice->elements == own.elements;
      NIBBLE_CHECK(is_there && own.elements.begin % array.elements_a_value == 0,
                   "an array is not what this rank owns: " + array.name);
      ++slice;
    }
    NIBBLE_CHECK(slice == array.slices.end(), "an array is more than this rank owns: " + array.name);
  }
}

// Returns how many bytes are free for this user; nothing if the file system does not tell.
std::optional<uint64_t> free_bytes(const std::filesystem::path& directory) {
  struct statvfs status {};
  if (statvfs(directory.c_str(), &status) != 0) fail_system_call("examine", directory, errno);
  if (status.f_blocks == 0) return std::nullopt;
  return uint64_t{status.f_bavail} * status.f_frsize;
}

uint64_t total_bytes(const std::vector<RankReport>& reports) {
  uint64_t bytes = 0;
  for (const RankReport& report : reports) bytes += report.bytes;
  return bytes;
}

void require_space(const std::filesystem::path& directory, const std::vector<RankReport>& reports) {
  const uint64_t needed = total_bytes(reports);
  const std::optional<uint64_t> available = free_bytes(directory);
  if (available && *available < needed) {
    throw Error(
        ExitCode::io,
        fmt::format("a checkpoint needs {} bytes, but only {} are free in {}", needed, *available, directory.string()),
        "free disk space, then resume from the last checkpoint");
  }
}

// Rank 0 only. `bytes` is the size of one checkpoint.
void require_space_for_run(const std::filesystem::path& directory, uint64_t bytes, const CheckpointPlan& plan,
                           uint64_t present) {
  const std::optional<uint64_t> available = free_bytes(directory);
  if (!available) return;
  const uint64_t most = plan.most_at_once();
  const uint64_t missing = most > present ? most - present : 1;
  const auto mebibytes = [](uint64_t value) { return static_cast<double>(value) / 1048576.0; };
  if (*available < missing * bytes) {
    const uint64_t room = *available / bytes + present;
    const uint64_t beside = plan.validations > 0 ? 2 : 1;  // those that keep_last does not count
    throw Error(
        ExitCode::io,
        fmt::format("{} checkpoints of {:.1f} MiB are on the disk at once (checkpoint.keep_last {}, {}and the next "
                    "while it is written), {} of them now, but {:.1f} MiB are free in {}",
                    most, mebibytes(bytes), plan.keep_last, plan.validations > 0 ? "the best one, " : "",
                    std::min(present, most), mebibytes(*available), directory.string()),
        room > beside
            ? fmt::format("free disk space, set checkpoint.keep_last to {}, or choose another run.dir", room - beside)
            : "free disk space, or choose another run.dir");
  }
  const uint64_t for_ever = plan.most_kept_for_ever();
  if (*available < (missing + for_ever) * bytes) {
    log_warning("checkpoint.keep_every {} keeps up to {} more checkpoints of {:.1f} MiB, but {:.1f} MiB are free in {}",
                plan.keep_every, for_ever, mebibytes(bytes), mebibytes(*available), directory.string());
  }
}

// Makes a new directory beside the checkpoints, with a name that readers ignore.
std::filesystem::path make_temporary_directory(const std::filesystem::path& parent, uint64_t step) {
  for (int number = 0;; ++number) {
    std::filesystem::path path =
        parent / fmt::format("{}{}.{}.{}", temporary_prefix, step_directory_name(step), getpid(), number);
    if (mkdir(path.c_str(), 0755) == 0) return path;
    if (errno != EEXIST) fail_system_call("create", path, errno);
  }
}

void write_index(const std::filesystem::path& path, const CheckpointState& state) {
  Hdf5Writer writer(path);
  writer.write_attribute("step", state.step);
  const std::vector<std::vector<StoredPart>> parts = stored_parts(*state.owned);
  for (const CheckpointArray& array : state.arrays) {
    for (size_t i = 0; i < parts.size(); ++i) {
      const TensorLayout& tensor = state.owned->layout().tensors()[i];
      if (!array.covers(tensor)) continue;
      std::vector<VirtualPart> sources;
      for (const StoredPart& part : parts[i]) {
        sources.push_back({rank_file_name(part.file), slice_of(array, tensor, part)});
      }
      writer.write_virtual({array.name, tensor.name, array.dtype_of(tensor), array.shape_of(tensor), 0, 0}, sources);
    }
  }
  for (const ReplicatedArray& array : state.replicated) {
    const TensorSlice whole = whole_array(array.name, array.values);
    writer.write_virtual(whole, {{rank_file_name(0), whole}});
  }
  writer.close();
  sync_path(path);
}

Manifest make_manifest(const CheckpointState& state, const std::vector<RankReport>& reports,
                       const std::filesystem::path& directory) {
  Manifest manifest;
  CheckpointInfo& info = manifest.info;
  static_cast<RunFacts&>(info) = state;
  info.ranks = state.owned->ranks();
  info.nibble_version = NIBBLE_VERSION;
  info.commit = build_facts.commit;
  info.layout = state.owned->layout();
  info.arrays.assign(state.arrays.begin(), state.arrays.end());
  for (const ReplicatedArray& array : state.replicated) {
    info.replicated.push_back({array.name, whole_array(array.name, array.values).shape, array.values.dtype()});
  }
  for (const char* name : {"config.yaml", "index.h5"}) manifest.files.push_back({name, digest_file(directory / name)});
  for (size_t rank = 0; rank < reports.size(); ++rank) {
    const std::string name = rank_file_name(static_cast<int>(rank));
    const RankReport& report = reports[rank];
    std::error_code error;
    if (const uint64_t visible = std::filesystem::file_size(directory / name, error);
        error || visible != report.bytes) {
      throw Error(ExitCode::io,
                  fmt::format("rank 0 does not see {} as rank {} wrote it", (directory / name).string(), rank),
                  "put run.dir on a file system that all ranks share");
    }
    info.rank_files.push_back({name, state.owned->ranges(static_cast<int>(rank))});
    manifest.files.push_back({name, {report.bytes, std::string(report.hash.begin(), report.hash.end())}});
  }
  return manifest;
}

// Makes the checkpoint visible under its name. An older checkpoint of the same step is replaced: the two directories
// exchange their names, at once if the file system can do that.
void rename_into_place(const std::filesystem::path& temporary, const std::filesystem::path& directory) {
  if (std::rename(temporary.c_str(), directory.c_str()) != 0) {
    if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOTDIR) fail_system_call("publish", directory, errno);
    if (renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, directory.c_str(), RENAME_EXCHANGE) != 0) {
      const std::filesystem::path replaced = temporary.string() + ".replaced";
      if (std::rename(directory.c_str(), replaced.c_str()) != 0 ||
          std::rename(temporary.c_str(), directory.c_str()) != 0) {
        fail_system_call("publish", directory, errno);
      }
    }
  }
  sync_path(directory.parent_path());
}

}  // namespace

struct Snapshot::Parts {
  std::filesystem::path run_directory;
  CheckpointState state;
  int rank = 0;
  std::filesystem::path temporary;
  std::vector<TensorSlice> datasets;  // of this rank's file
  std::vector<HostCopy> copies;       // [datasets]
  RankReport report;
};

Snapshot::Snapshot(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Snapshot::Snapshot(Snapshot&&) noexcept = default;
Snapshot::~Snapshot() = default;

Snapshot Snapshot::plan(Communicator& communicator, const std::filesystem::path& run_directory, CheckpointState state) {
  auto parts = std::make_unique<Parts>();
  parts->run_directory = run_directory;
  parts->state = std::move(state);
  parts->rank = communicator.rank();
  std::string temporary;
  run_together(communicator, [&] {
    check_state(parts->state, communicator);
    parts->report.bytes = largest_file_bytes(parts->state);
  });
  const std::vector<RankReport> reports = gather_each(communicator, parts->report);
  on_leader(communicator, [&] {
    const std::filesystem::path parent = run_directory / "checkpoints";
    make_directories(parent);
    remove_leftovers(run_directory);
    require_space(parent, reports);
    temporary = make_temporary_directory(parent, parts->state.step).string();
  });
  parts->temporary = broadcast_string(communicator, temporary, 0);
  return Snapshot(std::move(parts));
}

void Snapshot::take() {
  const CheckpointState& state = parts_->state;
  const Layout& layout = state.owned->layout();
  const std::vector<std::vector<StoredPart>> parts = stored_parts(*state.owned);
  for (const CheckpointArray& array : state.arrays) {
    for (const Slice& slice : array.slices) {
      const auto part = std::ranges::find(parts[slice.tensor], slice.elements, &StoredPart::elements);
      parts_->datasets.push_back(slice_of(array, layout.tensors()[slice.tensor], *part));
      parts_->copies.emplace_back(array.bytes_of(layout, slice));
    }
  }
  for (const ReplicatedArray& array : state.replicated) {
    if (parts_->rank != 0) break;
    parts_->datasets.push_back(whole_array(array.name, array.values));
    parts_->copies.emplace_back(array.values);
  }
}

void Snapshot::write() {
  const std::filesystem::path path = parts_->temporary / rank_file_name(parts_->rank);
  Hdf5Writer writer(path);
  writer.write_attribute("step", parts_->state.step);
  for (size_t i = 0; i < parts_->datasets.size(); ++i) {
    writer.write_slice(parts_->datasets[i], parts_->copies[i].bytes());
  }
  writer.close();
  sync_path(path);
  const FileDigest digest = digest_file(path);
  parts_->report.bytes = digest.bytes;
  std::copy(digest.hash.begin(), digest.hash.end(), parts_->report.hash.begin());
}

std::filesystem::path Snapshot::publish(Communicator& communicator) {
  const CheckpointState& state = parts_->state;
  const std::filesystem::path& temporary = parts_->temporary;
  std::filesystem::path directory = parts_->run_directory / "checkpoints" / step_directory_name(state.step);
  const std::vector<RankReport> reports = gather_each(communicator, parts_->report);
  on_leader(communicator, [&] {
    write_index(temporary / "index.h5", state);
    write_new_file(temporary / "config.yaml", state.config_yaml);
    write_new_file(temporary / "manifest.json", manifest_text(make_manifest(state, reports, temporary)));
    sync_path(temporary);
    rename_into_place(temporary, directory);
  });
  return directory;
}

// A run without checkpoint.every has those of step 0 and of its last step.
uint64_t CheckpointPlan::most_at_once() const {
  const uint64_t saves = 1 + (every == 0 ? 1 : div_ceil(steps, every)) + validations;
  return std::min(keep_last + 1 + (validations > 0 ? 1 : 0), saves);
}

uint64_t CheckpointPlan::most_kept_for_ever() const {
  if (keep_every == 0) return 0;
  return every == 0 ? 1 : steps / std::lcm(every, keep_every);
}

void check_space_for_run(Communicator& communicator, const std::filesystem::path& run_directory,
                         const CheckpointState& state, const CheckpointPlan& plan) {
  const std::vector<RankReport> reports = gather_each(communicator, RankReport{.bytes = largest_file_bytes(state)});
  on_leader(communicator, [&] {
    const std::vector<StepDirectory> checkpoints = list_checkpoints(run_directory);
    // Later ones are about to be set aside, where they stay on the disk.
    const auto present = std::ranges::count_if(checkpoints, [&](const StepDirectory& checkpoint) {
      return !checkpoint.is_link && checkpoint.step <= state.step;
    });
    require_space_for_run(run_directory / "checkpoints", total_bytes(reports), plan, static_cast<uint64_t>(present));
  });
}

std::filesystem::path save_checkpoint(Communicator& communicator, const std::filesystem::path& run_directory,
                                      CheckpointState state) {
  Snapshot snapshot = Snapshot::plan(communicator, run_directory, std::move(state));
  try {
    run_together(communicator, [&] {
      snapshot.take();
      snapshot.write();
    });
    std::filesystem::path directory = snapshot.publish(communicator);
    if (communicator.rank() == 0) remove_leftovers(run_directory);  // a checkpoint that was replaced
    return directory;
  } catch (...) {
    if (communicator.rank() == 0) remove_leftovers(run_directory);
    throw;
  }
}

}  // namespace nibble
