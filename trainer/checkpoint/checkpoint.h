// Checkpoints. A checkpoint is a directory RUN_DIR/checkpoints/step-00000100/ with one HDF5 file for each rank, a
// manifest with the hash of every file, and an index for users of h5py (docs/formats.md, "Checkpoints"). It appears by
// the rename of a complete, synced directory, and HDF5 opens no file before its hash has been compared with the
// manifest's. The number of ranks that load may differ from the number that saved.
// checkpoint.cpp loads, checkpoint_save.cpp saves, and checkpoint_inspect.cpp serves `nibble inspect`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "dist/ranks/communicator.h"
#include "model/layers/parameter.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// The position of a tensor in the flat buffers. Elements of a flat buffer that belong to no tensor are zero and are not
// stored.
struct TensorEntry {
  std::string name;            // letters, digits, '_', '-' and '.'; unique
  std::vector<int64_t> shape;  // 1 to 4 axes
  uint64_t offset = 0;         // first element in the flat buffer; entries are ascending and do not overlap
  uint64_t count = 0;          // elements, the product of shape
  friend bool operator==(const TensorEntry&, const TensorEntry&) = default;
};
std::vector<TensorEntry> tensor_entries(const ParameterTable& table);

// The part of one flat buffer that this rank holds.
struct StateBuffer {
  std::string group;  // "parameters", "optimizer/adam_m", ...
  Tensor shard;       // [shard_end - shard_begin]
};

// Numbers that are the same on every rank. They are stored once, in the first rank's file.
struct ReplicatedArray {
  std::string name;  // "quantization/amax_history": a group and a name
  Tensor values;     // on the CPU, 1 to 4 axes, none of them empty
};

// A number that is the same on every rank. It is a member of the manifest.
struct NamedNumber {
  std::string name;  // as those of tensors; no other member of the manifest has it
  uint64_t value = 0;
  friend bool operator==(const NamedNumber&, const NamedNumber&) = default;
};

struct CheckpointState {
  uint64_t step = 0;
  uint64_t tokens = 0;
  uint64_t seed = 0;
  std::string config_yaml;  // resolved
  std::string data_fingerprint;
  std::vector<TensorEntry> tensors;
  std::vector<StateBuffer> buffers;  // the same groups and dtypes in the same order on every rank
  uint64_t shard_begin = 0;          // this rank's elements of the flat buffers; the ranks' ranges follow each other
  uint64_t shard_end = 0;
  std::vector<NamedNumber> numbers = {};
  std::vector<ReplicatedArray> replicated = {};
};

// Writes a checkpoint and returns its directory; a checkpoint of the same step is replaced. Collective; the caller
// holds the run's lock (trainer/run/run_directory.h). After any failure all ranks throw ExitCode::io (the message names
// the bytes needed if there is no space) or ExitCode::cannot_create, nothing is left behind, and earlier checkpoints
// are unchanged.
std::filesystem::path save_checkpoint(Communicator& communicator, const std::filesystem::path& run_directory,
                                      const CheckpointState& state);

struct CheckpointInfo {
  struct Group {
    std::string name;
    DType dtype = DType::f32;
  };
  struct Replicated {
    std::string name;
    std::vector<int64_t> shape;
    DType dtype = DType::f32;
  };
  struct RankFile {
    std::string name;
    uint64_t begin = 0;  // elements of the flat buffers of the saving run
    uint64_t end = 0;
  };

  std::filesystem::path directory;
  uint64_t step = 0;
  uint64_t tokens = 0;
  uint64_t seed = 0;
  int ranks = 0;  // number of ranks of the run that saved
  std::string config_yaml;
  std::string data_fingerprint;
  std::string nibble_version;
  std::vector<TensorEntry> tensors;
  std::vector<Group> groups;
  std::vector<RankFile> rank_files;
  std::vector<NamedNumber> numbers;
  std::vector<Replicated> replicated;

  // Returns 0 if there is no such number.
  uint64_t number(const std::string& name) const;
  // Returns null if there is no such array.
  const Replicated* find_replicated(const std::string& name) const;
};

// Says what find_checkpoint() does with a damaged checkpoint besides warning: leave it as it is, or rename it to
// NAME.corrupt so that it is never tried again. Only the holder of the run's lock may set checkpoints aside.
enum class DamagedCheckpoint : uint8_t { leave, set_aside };

// Collective. Returns the newest checkpoint of the run whose files all have the hashes that its manifest names. A
// damaged checkpoint is skipped with a warning that names the file. Throws ExitCode::bad_data if all are damaged and
// ExitCode::missing_input if there is none, so that no run starts from scratch by accident.
CheckpointInfo find_checkpoint(Communicator& communicator, const std::filesystem::path& run_directory,
                               DamagedCheckpoint damaged = DamagedCheckpoint::leave);

// Collective. Opens a path that a user has given: the directory of one checkpoint, or a run directory, which means the
// run's newest valid checkpoint. Throws as find_checkpoint() does, and ExitCode::bad_data if the one checkpoint is
// damaged.
CheckpointInfo open_checkpoint(Communicator& communicator, const std::filesystem::path& path);

// Fills destination [end - begin] with the elements [begin, end) of a flat buffer in which `tensors` lie. They are read
// from all rank files that hold some of them; gaps between tensors become zero. Throws ExitCode::bad_data if the
// checkpoint lacks the group or a tensor, or holds it in another shape or dtype than the destination's. Not collective.
void load_buffer(const CheckpointInfo& checkpoint, const std::string& group, const std::vector<TensorEntry>& tensors,
                 uint64_t begin, uint64_t end, const Tensor& destination);

// Fills `destination`, which is on the CPU and has the saved array's shape and dtype. Older programs saved every such
// array as f32: where `destination` is i32, it takes their whole numbers. Throws ExitCode::bad_data if the checkpoint
// lacks the array or holds it in another shape or dtype, or a number that is not whole. Not collective.
void load_replicated(const CheckpointInfo& checkpoint, const std::string& name, const Tensor& destination);

// Removes checkpoints that are older than `newest`, except the keep_last newest (at least 1; `newest` counts as one)
// and those whose step is a multiple of keep_every (0 = no such exception). A checkpoint with a damaged manifest is
// neither counted nor removed. An interrupted removal never leaves a part of a checkpoint under its name. Called by
// rank 0, which holds the lock, after save_checkpoint() of step `newest`.
void prune_checkpoints(const std::filesystem::path& run_directory, uint64_t newest, uint64_t keep_last,
                       uint64_t keep_every);

// Removes what a killed save or removal has left in checkpoints/. Called by rank 0, which holds the lock, when a run
// starts.
void remove_leftovers(const std::filesystem::path& run_directory);

// Prints manifest, tensors and the state of every file of a checkpoint to standard output; `path` is as for
// open_checkpoint(). Throws ExitCode::bad_data at the end if a file is damaged.
void inspect_checkpoint(const std::filesystem::path& path);

}  // namespace nibble
