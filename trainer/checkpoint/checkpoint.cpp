#include "trainer/checkpoint/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <span>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/file_system.h"
#include "dist/base/hash.h"
#include "dist/base/log.h"
#include "quant/tensor/tensor_copy.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/hdf5_file.h"
#include "trainer/checkpoint/manifest.h"

namespace nibble {

namespace {

// Describes the first file in the manifest's order that is damaged on disk; the text is empty if all are whole.
// Collective: each rank checks a part of the files.
std::string first_damage(Communicator& communicator, const std::filesystem::path& directory,
                         const std::vector<ManifestFile>& files) {
  const auto ranks = static_cast<size_t>(communicator.size());
  const size_t count = files.size();
  std::string damage;
  size_t damaged = count;
  for (auto index = static_cast<size_t>(communicator.rank()); index < count && damage.empty(); index += ranks) {
    damage = damage_of(directory, files[index]);
    if (!damage.empty()) damaged = index;
  }
  const size_t first = count - static_cast<size_t>(communicator.all_reduce_max(static_cast<int64_t>(count - damaged)));
  if (first == count) return {};
  return broadcast_string(communicator, damage, static_cast<int>(first % ranks));
}

struct VerifiedCheckpoint {
  CheckpointInfo info;
  std::string damage;  // empty: info is complete
};

// Reads the manifest and compares the hash of every file. Collective. `step` is the one in the directory's name.
VerifiedCheckpoint verify_checkpoint(Communicator& communicator, const std::filesystem::path& directory,
                                     std::optional<uint64_t> step) {
  const std::filesystem::path path = directory / "manifest.json";
  VerifiedCheckpoint result;
  std::string text;
  if (communicator.rank() == 0) {
    try {
      text = read_file(path, max_manifest_bytes);
      const uint64_t stated = parse_manifest(text, path).info.step;
      if (step && *step != stated) result.damage = fmt::format("{} is of step {}", path.string(), stated);
    } catch (const Error& error) {
      result.damage = error.what();
    }
  }
  result.damage = broadcast_string(communicator, result.damage, 0);
  if (!result.damage.empty()) return result;
  const Manifest manifest = parse_manifest(broadcast_string(communicator, text, 0), path);
  result.damage = first_damage(communicator, directory, manifest.files);
  if (!result.damage.empty()) return result;

  result.info = manifest.info;
  result.info.directory = directory;
  const FileDigest& config = manifest.files.front().digest;
  std::string yaml;
  if (communicator.rank() == 0) {
    try {
      yaml = read_file(directory / "config.yaml", config.bytes);
      if (to_hex(hash128(yaml)) != config.hash)
        result.damage = fmt::format("{}/config.yaml changed", directory.string());
    } catch (const Error& error) {
      result.damage = error.what();
    }
  }
  result.damage = broadcast_string(communicator, result.damage, 0);
  result.info.config_yaml = broadcast_string(communicator, yaml, 0);
  return result;
}

void set_aside(const std::filesystem::path& directory) {
  std::string name = directory.string() + ".corrupt";
  for (int number = 2; std::filesystem::exists(std::filesystem::symlink_status(name)); ++number) {
    name = fmt::format("{}.corrupt.{}", directory.string(), number);
  }
  if (std::rename(directory.c_str(), name.c_str()) == 0) {
    log_warning("moved the damaged checkpoint to {}", name);
  } else {
    log_warning("cannot rename {}: {}", directory.string(), std::strerror(errno));
  }
}

// Lists the checkpoints on rank 0 and sends the list to all ranks, which must agree on it.
std::vector<StepDirectory> agreed_list(Communicator& communicator, const std::filesystem::path& run_directory) {
  std::vector<uint64_t> steps;
  on_leader(communicator, [&] {
    for (const StepDirectory& checkpoint : list_checkpoints(run_directory)) steps.push_back(checkpoint.step);
  });
  Communicator& host = communicator.host();
  uint64_t count = steps.size();
  host.broadcast(std::as_writable_bytes(std::span(&count, 1)), 0);
  steps.resize(count);
  if (count > 0) host.broadcast(std::as_writable_bytes(std::span(steps)), 0);
  std::vector<StepDirectory> result;
  for (const uint64_t step : steps) result.push_back({step, run_directory / "checkpoints" / step_directory_name(step)});
  return result;
}

[[noreturn]] void fail_none(const std::filesystem::path& run_directory) {
  throw Error(ExitCode::missing_input, fmt::format("there is no checkpoint in {}", run_directory.string()),
              "name a run directory with a checkpoint, or start a new run with nibble train");
}

[[noreturn]] void fail_mismatch(const CheckpointInfo& checkpoint, const std::string& what) {
  throw Error(ExitCode::bad_data, fmt::format("the checkpoint {} {}", checkpoint.directory.string(), what),
              "use the configuration in its config.yaml");
}

// Reads the saved tensors of one group of a checkpoint. Rank files are opened when they are needed.
class SliceReader {
 public:
  SliceReader(const CheckpointInfo& checkpoint, const CheckpointInfo::Group& group)
      : checkpoint_(checkpoint), group_(group) {
    for (const TensorEntry& tensor : checkpoint.tensors) saved_.emplace(tensor.name, &tensor);
  }

  const TensorEntry& find(const TensorEntry& wanted) const {
    const auto found = saved_.find(wanted.name);
    if (found == saved_.end()) fail_mismatch(checkpoint_, fmt::format("has no tensor {}", wanted.name));
    if (found->second->shape != wanted.shape) {
      fail_mismatch(checkpoint_, fmt::format("holds {} as [{}], not [{}]", wanted.name,
                                             fmt::join(found->second->shape, ", "), fmt::join(wanted.shape, ", ")));
    }
    return *found->second;
  }

  // Reads the elements [begin, begin + destination size) of a saved tensor.
  void read(const TensorEntry& saved, uint64_t begin, std::span<std::byte> destination) {
    const size_t width = size_of(group_.dtype);
    const uint64_t flat_begin = saved.offset + begin;
    const uint64_t flat_end = flat_begin + destination.size() / width;
    for (size_t index = 0; index < checkpoint_.rank_files.size(); ++index) {
      const CheckpointInfo::RankFile& file = checkpoint_.rank_files[index];
      const uint64_t from = std::max(file.begin, flat_begin);
      const uint64_t to = std::min(file.end, flat_end);
      if (from >= to) continue;
      const uint64_t slice_begin = std::max(file.begin, saved.offset);
      const uint64_t slice_end = std::min(file.end, saved.offset + saved.count);
      const TensorSlice slice{
          group_.name, saved.name, group_.dtype, saved.shape, slice_begin - saved.offset, slice_end - slice_begin};
      open(index).read_slice(slice, from - slice_begin,
                             destination.subspan((from - flat_begin) * width, (to - from) * width));
    }
  }

 private:
  Hdf5Reader& open(size_t index) {
    if (reader_ == nullptr || opened_ != index) {
      reader_.reset();
      reader_ = std::make_unique<Hdf5Reader>(checkpoint_.directory / checkpoint_.rank_files[index].name);
      opened_ = index;
    }
    return *reader_;
  }

  const CheckpointInfo& checkpoint_;
  const CheckpointInfo::Group& group_;
  std::map<std::string, const TensorEntry*> saved_;
  std::unique_ptr<Hdf5Reader> reader_;  // tensors and files are both in flat order: one open file is enough
  size_t opened_ = 0;
};

}  // namespace

std::vector<TensorEntry> tensor_entries(const ParameterTable& table) {
  std::vector<TensorEntry> entries;
  for (const Parameter& parameter : table.parameters()) {
    entries.push_back({parameter.name, parameter.shape, parameter.offset, parameter.count});
  }
  return entries;
}

CheckpointInfo find_checkpoint(Communicator& communicator, const std::filesystem::path& run_directory,
                               DamagedCheckpoint damaged) {
  const std::vector<StepDirectory> candidates = agreed_list(communicator, run_directory);
  if (candidates.empty()) fail_none(run_directory);
  std::string newest_damage;
  for (const StepDirectory& candidate : candidates) {
    VerifiedCheckpoint verified = verify_checkpoint(communicator, candidate.path, candidate.step);
    if (verified.damage.empty()) {
      if (!newest_damage.empty() && communicator.rank() == 0) {
        log_warning("using the checkpoint of step {} instead", candidate.step);
      }
      return std::move(verified.info);
    }
    if (newest_damage.empty()) newest_damage = verified.damage;
    if (communicator.rank() != 0) continue;
    log_warning("the checkpoint of step {} is damaged: {}", candidate.step, verified.damage);
    if (damaged == DamagedCheckpoint::set_aside) set_aside(candidate.path);
  }
  throw Error(ExitCode::bad_data,
              fmt::format("no checkpoint in {} is whole; the newest: {}", run_directory.string(), newest_damage),
              "restore the files from a copy, or start a new run with nibble train");
}

CheckpointInfo open_checkpoint(Communicator& communicator, const std::filesystem::path& path) {
  enum class Kind : char { missing, run, checkpoint };
  Kind kind = Kind::missing;
  std::error_code ignored;
  if (std::filesystem::exists(path / "manifest.json", ignored)) {
    kind = Kind::checkpoint;
  } else if (std::filesystem::is_directory(path, ignored)) {
    kind = Kind::run;
  }
  communicator.broadcast(std::as_writable_bytes(std::span(&kind, 1)), 0);
  if (kind == Kind::missing) {
    throw Error(ExitCode::missing_input, fmt::format("{} is not a directory", path.string()),
                "name a run directory or one of its checkpoints");
  }
  if (kind == Kind::run) return find_checkpoint(communicator, path);
  VerifiedCheckpoint verified = verify_checkpoint(communicator, path, std::nullopt);
  if (!verified.damage.empty()) {
    throw Error(ExitCode::bad_data, fmt::format("the checkpoint is damaged: {}", verified.damage),
                "use another checkpoint");
  }
  return std::move(verified.info);
}

void load_buffer(const CheckpointInfo& checkpoint, const std::string& group, const std::vector<TensorEntry>& tensors,
                 uint64_t begin, uint64_t end, const Tensor& destination) {
  NIBBLE_CHECK(begin <= end && (begin == end || static_cast<uint64_t>(destination.elements()) == end - begin),
               "destination does not match the range");
  const auto saved_group = std::find_if(checkpoint.groups.begin(), checkpoint.groups.end(),
                                        [&group](const auto& candidate) { return candidate.name == group; });
  if (saved_group == checkpoint.groups.end()) fail_mismatch(checkpoint, fmt::format("has no {}", group));
  if (saved_group->dtype != destination.dtype()) {
    fail_mismatch(checkpoint, fmt::format("holds {} as {}, not {}", group, name_of(saved_group->dtype),
                                          name_of(destination.dtype())));
  }
  if (begin == end) return;
  const size_t width = size_of(destination.dtype());
  const HostStage stage(destination);
  const std::span<std::byte> values = stage.bytes();
  std::memset(values.data(), 0, values.size());
  SliceReader reader(checkpoint, *saved_group);
  for (const TensorEntry& tensor : tensors) {
    const uint64_t from = std::max(begin, tensor.offset);
    const uint64_t to = std::min(end, tensor.offset + tensor.count);
    if (from >= to) continue;
    reader.read(reader.find(tensor), from - tensor.offset, values.subspan((from - begin) * width, (to - from) * width));
  }
  stage.finish();
}

uint64_t CheckpointInfo::number(const std::string& name) const {
  const auto found = std::ranges::find(numbers, name, &NamedNumber::name);
  return found == numbers.end() ? 0 : found->value;
}

const CheckpointInfo::Replicated* CheckpointInfo::find_replicated(const std::string& name) const {
  const auto found =
      std::find_if(replicated.begin(), replicated.end(), [&name](const auto& array) { return array.name == name; });
  return found == replicated.end() ? nullptr : &*found;
}

void load_replicated(const CheckpointInfo& checkpoint, const std::string& name, const Tensor& destination) {
  const CheckpointInfo::Replicated* const saved = checkpoint.find_replicated(name);
  if (saved == nullptr) fail_mismatch(checkpoint, fmt::format("has no {}", name));
  TensorSlice slice = whole_array(name, destination);
  if (saved->shape != slice.shape) {
    fail_mismatch(checkpoint, fmt::format("holds {} as [{}], not [{}]", name, fmt::join(saved->shape, ", "),
                                          fmt::join(slice.shape, ", ")));
  }
  Hdf5Reader reader(checkpoint.directory / checkpoint.rank_files.front().name);
  if (saved->dtype == destination.dtype()) {
    reader.read_slice(slice, 0, {static_cast<std::byte*>(destination.data()), destination.bytes()});
    return;
  }
  if (saved->dtype != DType::f32 || destination.dtype() != DType::i32) {
    fail_mismatch(checkpoint,
                  fmt::format("holds {} as {}, not {}", name, name_of(saved->dtype), name_of(destination.dtype())));
  }
  std::vector<float> numbers(slice.count);
  slice.dtype = DType::f32;
  reader.read_slice(slice, 0, std::as_writable_bytes(std::span(numbers)));
  for (size_t i = 0; i < numbers.size(); ++i) {
    const bool whole = std::fabs(numbers[i]) < 0x1p31F && std::trunc(numbers[i]) == numbers[i];
    if (!whole) fail_mismatch(checkpoint, fmt::format("holds {} in {}, not whole numbers", numbers[i], name));
    destination.as<int32_t>()[i] = static_cast<int32_t>(numbers[i]);
  }
}

}  // namespace nibble
