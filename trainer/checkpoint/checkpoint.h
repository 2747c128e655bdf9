// Checkpoints: RUN_DIR/checkpoints/step-00000100/, one HDF5 file a rank, a manifest with the hash of every file, and an
// index for h5py users (docs/formats.md, "Checkpoints"). A checkpoint appears by the rename of a complete, synced
// directory; HDF5 opens no file before its hash has been compared with the manifest's. Any number of ranks may load
// what any number of ranks saved.
// Loading is checkpoint.cpp, saving checkpoint_save.cpp, `nibble inspect` of a checkpoint checkpoint_inspect.cpp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "dist/ranks/communicator.h"
#include "model/layers/parameter.h"
#include "quant/tensor/tensor.h"
#include "trainer/checkpoint/skipped_steps.h"

namespace nibble {

// Where a tensor lies in the flat buffers. Elements of a flat buffer that belong to no tensor are zero and not stored.
struct TensorEntry {
  std::string name;            // letters, digits, '_', '-' and '.'; unique
  std::vector<int64_t> shape;  // 1 to 4 axes
  uint64_t offset = 0;         // first element in the flat buffer; entries are ascending and do not overlap
  uint64_t count = 0;          // elements, the product of shape
  friend bool operator==(const TensorEntry&, const TensorEntry&) = default;
};
std::vector<TensorEntry> tensor_entries(const ParameterTable& table);

// One flat buffer's part on this rank. group: "parameters", "optimizer/adam_m", ...
struct StateBuffer {
  std::string group;
  Tensor shard;  // [shard_end - shard_begin]
};

// Numbers that are the same on every rank: stored once, in the first rank's file.
struct ReplicatedArray {
  std::string name;  // "quantization/amax_history": a group and a name
  Tensor values;     // f32, 1 to 4 axes, none of them empty
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
  SkippedSteps skipped;
  std::vector<ReplicatedArray> replicated = {};
};

// Collective; call while holding the run's lock (trainer/run/run_directory.h). Returns the new checkpoint's directory;
// one of the same step is replaced. On any failure (ExitCode::io: no space, the bytes needed are named;
// ExitCode::cannot_create) all ranks throw, nothing is left behind, and earlier checkpoints are as they were.
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
  int ranks = 0;  // of the run that saved
  std::string config_yaml;
  std::string data_fingerprint;
  std::string nibble_version;
  std::vector<TensorEntry> tensors;
  std::vector<Group> groups;
  std::vector<RankFile> rank_files;
  SkippedSteps skipped;
  std::vector<Replicated> replicated;

  // Null if there is no such array.
  const Replicated* find_replicated(const std::string& name) const;
};

// What find_checkpoint does with a damaged checkpoint besides warning: leave it, or rename it to NAME.corrupt so that
// it is never tried again (for the holder of the run's lock).
enum class DamagedCheckpoint : uint8_t { leave, set_aside };

// Collective. The newest checkpoint of the run all of whose files have the hashes that its manifest names. A damaged
// one is reported in a warning that names the file, and skipped. ExitCode::bad_data if all are damaged,
// ExitCode::missing_input if there is none: nobody starts from scratch by accident.
CheckpointInfo find_checkpoint(Communicator& communicator, const std::filesystem::path& run_directory,
                               DamagedCheckpoint damaged = DamagedCheckpoint::leave);

// Collective. The same for a path given by a user: a run directory (its newest valid checkpoint) or one checkpoint's
// directory (ExitCode::bad_data if it is damaged).
CheckpointInfo open_checkpoint(Communicator& communicator, const std::filesystem::path& path);

// Fills destination [end - begin] with elements [begin, end) of a flat buffer laid out by `tensors`, from whichever
// rank files hold them; gaps between tensors become zero. ExitCode::bad_data if the checkpoint lacks the group or a
// tensor, or holds it in another shape or dtype than the destination's. Not collective.
void load_buffer(const CheckpointInfo& checkpoint, const std::string& group, const std::vector<TensorEntry>& tensors,
                 uint64_t begin, uint64_t end, const Tensor& destination);

// Fills destination, f32 of the saved array's shape. ExitCode::bad_data if the checkpoint lacks the array or holds it
// in another shape. Not collective.
void load_replicated(const CheckpointInfo& checkpoint, const std::string& name, const Tensor& destination);

// Rank 0, holding the lock, after save_checkpoint of step `newest`. Removes checkpoints older than `newest` unless they
// are among the keep_last newest (`newest` counts, at least 1) or their step is a multiple of keep_every (0 = none
// are). Damaged manifests are neither counted nor removed. A removal that is interrupted never leaves a half
// checkpoint.
void prune_checkpoints(const std::filesystem::path& run_directory, uint64_t newest, uint64_t keep_last,
                       uint64_t keep_every);

// Rank 0, holding the lock, at start: removes what a killed save or prune left in checkpoints/.
void remove_leftovers(const std::filesystem::path& run_directory);

// Prints a checkpoint (a path as for open_checkpoint) to standard output: manifest, tensors, and the state of every
// file. Throws ExitCode::bad_data at the end if a file is damaged.
void inspect_checkpoint(const std::filesystem::path& path);

}  // namespace nibble
