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
#include <span>

#include "dist/base/error.h"
#include "dist/base/file_descriptor.h"
#include "dist/base/file_system.h"
#include "dist/base/log.h"
#include "quant/tensor/tensor_copy.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/hdf5_file.h"
#include "trainer/checkpoint/manifest.h"

namespace nibble {

namespace {

// The report of one rank to all others. It is sent as plain bytes.
struct RankReport {
  uint64_t shard_begin = 0;
  uint64_t shard_end = 0;
  uint64_t bytes = 0;  // first an upper bound of the size of the rank's file, then its size
  std::array<char, 32> hash{};
};

std::vector<RankReport> gather(Communicator& communicator, const RankReport& own) {
  const auto ranks = static_cast<size_t>(communicator.size());
  std::vector<RankReport> reports(ranks);
  reports[static_cast<size_t>(communicator.rank())] = own;
  std::vector<uint64_t> offsets(ranks + 1);
  for (size_t rank = 0; rank <= ranks; ++rank) offsets[rank] = rank * sizeof(RankReport);
  communicator.all_gather(std::as_writable_bytes(std::span(reports)), offsets);
  return reports;
}

// Returns an upper bound of the size of this rank's file. It includes alignment and metadata of every dataset and the
// metadata of the file.
uint64_t largest_file_bytes(const CheckpointState& state) {
  constexpr uint64_t per_dataset = 8192;
  uint64_t bytes = (uint64_t{1} << 20) + state.config_yaml.size();
  for (const StateBuffer& buffer : state.buffers) {
    bytes += buffer.shard.bytes() + 2 * per_dataset * state.tensors.size();
  }
  for (const ReplicatedArray& array : state.replicated) bytes += array.values.bytes() + 2 * per_dataset;
  return bytes;
}

void check_state(const CheckpointState& state, const std::vector<RankReport>& reports) {
  uint64_t next = 0;
  for (const RankReport& report : reports) {
    NIBBLE_CHECK(report.shard_begin == next && report.shard_end >= next, "shards do not follow each other");
    next = report.shard_end;
  }
  uint64_t tensors_end = 0;
  for (const TensorEntry& tensor : state.tensors) {
    NIBBLE_CHECK(tensor.offset >= tensors_end, "tensors overlap");
    tensors_end = tensor.offset + tensor.count;
  }
  NIBBLE_CHECK(tensors_end <= next, "tensors lie beyond the last shard");
  for (const StateBuffer& buffer : state.buffers) {
    const uint64_t elements = buffer.shard.empty() ? 0 : static_cast<uint64_t>(buffer.shard.elements());
    NIBBLE_CHECK(elements == state.shard_end - state.shard_begin, "a buffer is not this rank's shard: " + buffer.group);
  }
}

void require_space(const std::filesystem::path& directory, const std::vector<RankReport>& reports) {
  uint64_t needed = 0;
  for (const RankReport& report : reports) needed += report.bytes;
  struct statvfs status {};
  if (statvfs(directory.c_str(), &status) != 0) fail_system_call("examine", directory, errno);
  const uint64_t available = uint64_t{status.f_bavail} * status.f_frsize;
  if (available < needed) {
    throw Error(
        ExitCode::io,
        fmt::format("a checkpoint needs {} bytes, but only {} are free in {}", needed, available, directory.string()),
        "free disk space, then resume from the last checkpoint");
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

// Returns the slice of a tensor that lies in [begin, end) of the flat buffers; its count is 0 if none of it does.
TensorSlice slice_of(const StateBuffer& buffer, const TensorEntry& tensor, uint64_t begin, uint64_t end) {
  const uint64_t from = std::max(begin, tensor.offset);
  const uint64_t to = std::min(end, tensor.offset + tensor.count);
  return {buffer.group, tensor.name,          buffer.shard.dtype(),
          tensor.shape, from - tensor.offset, from < to ? to - from : 0};
}

FileDigest write_rank_file(const std::filesystem::path& path, const CheckpointState& state, bool first_rank) {
  std::vector<HostCopy> copies;  // the writer compares the file with them when it closes
  Hdf5Writer writer(path);
  writer.write_attribute("step", state.step);
  writer.write_attribute("shard_begin", state.shard_begin);
  writer.write_attribute("shard_end", state.shard_end);
  for (const StateBuffer& buffer : state.buffers) {
    const size_t width = size_of(buffer.shard.dtype());
    const std::span<const std::byte> values = copies.emplace_back(buffer.shard).bytes();
    for (const TensorEntry& tensor : state.tensors) {
      const TensorSlice slice = slice_of(buffer, tensor, state.shard_begin, state.shard_end);
      if (slice.count == 0) continue;
      const uint64_t first = tensor.offset + slice.offset - state.shard_begin;
      writer.write_slice(slice, values.subspan(first * width, slice.count * width));
    }
  }
  for (const ReplicatedArray& array : state.replicated) {
    if (!first_rank) break;
    writer.write_slice(whole_array(array.name, array.values), copies.emplace_back(array.values).bytes());
  }
  writer.close();
  sync_path(path);
  return digest_file(path);
}

void write_index(const std::filesystem::path& path, const CheckpointState& state,
                 const std::vector<RankReport>& reports) {
  Hdf5Writer writer(path);
  writer.write_attribute("step", state.step);
  for (const StateBuffer& buffer : state.buffers) {
    for (const TensorEntry& tensor : state.tensors) {
      std::vector<VirtualPart> parts;
      TensorSlice slice;
      for (size_t rank = 0; rank < reports.size(); ++rank) {
        slice = slice_of(buffer, tensor, reports[rank].shard_begin, reports[rank].shard_end);
        if (slice.count > 0) parts.push_back({rank_file_name(static_cast<int>(rank)), slice.offset, slice.count});
      }
      writer.write_virtual(slice, parts);
    }
  }
  for (const ReplicatedArray& array : state.replicated) {
    const TensorSlice whole = whole_array(array.name, array.values);
    writer.write_virtual(whole, {{rank_file_name(0), 0, whole.count}});
  }
  writer.close();
  sync_path(path);
}

Manifest make_manifest(const CheckpointState& state, const std::vector<RankReport>& reports,
                       const std::filesystem::path& directory) {
  Manifest manifest;
  CheckpointInfo& info = manifest.info;
  info.step = state.step;
  info.tokens = state.tokens;
  info.seed = state.seed;
  info.numbers = state.numbers;
  info.data_fingerprint = state.data_fingerprint;
  info.nibble_version = NIBBLE_VERSION;
  info.tensors = state.tensors;
  for (const StateBuffer& buffer : state.buffers) info.groups.push_back({buffer.group, buffer.shard.dtype()});
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
    info.rank_files.push_back({name, report.shard_begin, report.shard_end});
    manifest.files.push_back({name, {report.bytes, std::string(report.hash.begin(), report.hash.end())}});
  }
  return manifest;
}

// Makes the checkpoint visible under its name. An older checkpoint of the same step is replaced: the two directories
// exchange their names, at once if the file system can do that.
void publish(const std::filesystem::path& temporary, const std::filesystem::path& directory) {
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

std::filesystem::path save_checkpoint(Communicator& communicator, const std::filesystem::path& run_directory,
                                      const CheckpointState& state) {
  const std::filesystem::path parent = run_directory / "checkpoints";
  std::filesystem::path directory = parent / step_directory_name(state.step);
  RankReport own{state.shard_begin, state.shard_end, largest_file_bytes(state), {}};
  std::vector<RankReport> reports = gather(communicator, own);
  std::string temporary_name;
  run_together(communicator, [&] {
    check_state(state, reports);
    if (communicator.rank() != 0) return;
    make_directories(parent);
    remove_leftovers(run_directory);
    require_space(parent, reports);
    temporary_name = make_temporary_directory(parent, state.step).string();
  });
  const std::filesystem::path temporary = broadcast_string(communicator, temporary_name, 0);
  try {
    run_together(communicator, [&] {
      const FileDigest digest =
          write_rank_file(temporary / rank_file_name(communicator.rank()), state, communicator.rank() == 0);
      own.bytes = digest.bytes;
      std::copy(digest.hash.begin(), digest.hash.end(), own.hash.begin());
    });
    reports = gather(communicator, own);
    on_leader(communicator, [&] {
      write_index(temporary / "index.h5", state, reports);
      write_new_file(temporary / "config.yaml", state.config_yaml);
      write_new_file(temporary / "manifest.json", manifest_text(make_manifest(state, reports, temporary)));
      sync_path(temporary);
      publish(temporary, directory);
    });
  } catch (...) {
    if (communicator.rank() == 0) remove_leftovers(run_directory);
    throw;
  }
  if (communicator.rank() == 0) remove_leftovers(run_directory);  // a checkpoint that was replaced
  return directory;
}

}  // namespace nibble
