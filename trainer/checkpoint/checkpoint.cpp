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
#include "trainer/checkpoint/stored_parts.h"

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
  complete_version_1(result.info);
  return result;
}

void set_damaged_aside(const std::filesystem::path& directory) {
  if (const auto name = set_aside(directory, "corrupt")) {
    log_warning("moved the damaged checkpoint to {}", name->string());
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
  result.reserve(count);
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

// Reads values of a saved array: first all of them are named, then they are read, one rank file after the other.
class ArrayReader {
 public:
  ArrayReader(const CheckpointInfo& checkpoint, const ArrayInfo& wanted) : checkpoint_(checkpoint), wanted_(wanted) {
    const ArrayInfo* const saved = checkpoint.find_array(wanted.name);
    if (saved == nullptr) fail_mismatch(checkpoint_, fmt::format("has no {}", wanted.name));
    saved_ = *saved;
    if (saved_.elements_a_value != wanted.elements_a_value) {
      fail_mismatch(checkpoint_, fmt::format("holds a number of {} for every {} elements, not for every {}",
                                             wanted.name, saved_.elements_a_value, wanted.elements_a_value));
    }
    parts_ = stored_parts(placement_of_files(checkpoint));
    const std::vector<TensorLayout>& tensors = checkpoint.layout.tensors();
    for (size_t i = 0; i < tensors.size(); ++i) indices_.emplace(tensors[i].name, i);
  }

  // Names the values of elements of a tensor.
  void add(const TensorLayout& tensor, Range elements, std::span<std::byte> destination) {
    const size_t index = find(tensor);
    const TensorLayout& saved = checkpoint_.layout.tensors()[index];
    const size_t width = size_of(saved_.dtype_of(saved));
    const uint64_t first = saved_.values_of(elements).begin;
    for_each_part(parts_[index], elements, [&](size_t number, Range part) {
      const StoredPart& stored = parts_[index][number];
      const Range values = saved_.values_of(part);
      reads_.push_back({.file = static_cast<size_t>(stored.file),
                        .slice = slice_of(saved_, saved, stored),
                        .first = values.begin,
                        .destination = destination.subspan((values.begin - first) * width, values.count() * width)});
    });
  }

  void read() {
    std::ranges::stable_sort(reads_, {}, &Read::file);
    std::optional<Hdf5Reader> reader;
    for (size_t i = 0; i < reads_.size(); ++i) {
      const Read& next = reads_[i];
      if (i == 0 || next.file != reads_[i - 1].file) {
        reader.reset();
        reader.emplace(checkpoint_.directory / checkpoint_.rank_files[next.file].name);
      }
      reader->read_slice(next.slice, next.first - next.slice.offset, next.destination);
    }
  }

 private:
  struct Read {
    size_t file = 0;
    TensorSlice slice;
    uint64_t first = 0;  // value of the tensor
    std::span<std::byte> destination;
  };

  // Returns the index of the saved tensor.
  size_t find(const TensorLayout& tensor) const {
    const auto found = indices_.find(tensor.name);
    if (found == indices_.end() || !saved_.covers(checkpoint_.layout.tensors()[found->second])) {
      fail_mismatch(checkpoint_, fmt::format("has no tensor {} in {}", tensor.name, saved_.name));
    }
    const TensorLayout& saved = checkpoint_.layout.tensors()[found->second];
    if (saved.shape != tensor.shape) {
      fail_mismatch(checkpoint_, fmt::format("holds {} as [{}], not [{}]", tensor.name, fmt::join(saved.shape, ", "),
                                             fmt::join(tensor.shape, ", ")));
    }
    const DType dtype = saved_.dtype_of(saved);
    if (dtype != wanted_.dtype_of(tensor)) {
      fail_mismatch(checkpoint_, fmt::format("holds {} of {} as {}, not {}", saved_.name, tensor.name, name_of(dtype),
                                             name_of(wanted_.dtype_of(tensor))));
    }
    return found->second;
  }

  const CheckpointInfo& checkpoint_;
  const ArrayInfo& wanted_;
  ArrayInfo saved_;
  std::vector<std::vector<StoredPart>> parts_;  // [saved tensors]
  std::map<std::string, size_t> indices_;       // of the saved tensors by name
  std::vector<Read> reads_;
};

}  // namespace

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
    // What a link leads to may be away for a while, as an archive may.
    if (damaged == DamagedCheckpoint::set_aside && !std::filesystem::is_symlink(candidate.path)) {
      set_damaged_aside(candidate.path);
    }
  }
  throw Error(ExitCode::bad_data,
              fmt::format("no checkpoint in {} is whole; the newest: {}", run_directory.string(), newest_damage),
              "restore the files from a copy, or start a new run with nibble train");
}

namespace {

// Collective. Returns the one checkpoint that the caller wants.
CheckpointInfo require_checkpoint(Communicator& communicator, const std::filesystem::path& directory,
                                  std::optional<uint64_t> step) {
  VerifiedCheckpoint verified = verify_checkpoint(communicator, directory, step);
  if (verified.damage.empty()) return std::move(verified.info);
  throw Error(ExitCode::bad_data, fmt::format("the checkpoint is damaged: {}", verified.damage),
              "use another checkpoint");
}

}  // namespace

CheckpointInfo find_checkpoint_of_step(Communicator& communicator, const std::filesystem::path& run_directory,
                                       uint64_t step) {
  on_leader(communicator, [&] { checkpoint_of_step(run_directory, step); });
  return require_checkpoint(communicator, run_directory / "checkpoints" / step_directory_name(step), step);
}

CheckpointInfo open_checkpoint(Communicator& communicator, const std::filesystem::path& written) {
  std::string text;
  on_leader(communicator, [&] { text = written_checkpoint(written).string(); });
  const std::filesystem::path path = broadcast_string(communicator, text, 0);
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
  return require_checkpoint(communicator, path, std::nullopt);
}

void load_array(const CheckpointInfo& checkpoint, const Layout& layout, const CheckpointArray& destination) {
  ArrayReader reader(checkpoint, destination);
  if (destination.values.elements() == 0) return;
  const HostStage stage(destination.values);
  std::memset(stage.bytes().data(), 0, stage.bytes().size());
  CheckpointArray on_cpu = destination;
  on_cpu.values = destination.values.on_cpu(stage.bytes().data());
  for (const Slice& slice : destination.slices) {
    const Tensor bytes = on_cpu.bytes_of(layout, slice);
    reader.add(layout.tensors()[slice.tensor], slice.elements, {static_cast<std::byte*>(bytes.data()), bytes.bytes()});
  }
  reader.read();
  stage.finish();
}

void load_elements(const CheckpointInfo& checkpoint, const ArrayInfo& array, uint32_t tensor, Range elements,
                   std::span<std::byte> bytes) {
  load_array(checkpoint, checkpoint.layout,
             {array,
              Tensor(bytes.data(), DType::u8, {static_cast<int64_t>(bytes.size())}),
              {{.tensor = tensor, .elements = elements, .at = 0}}});
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
