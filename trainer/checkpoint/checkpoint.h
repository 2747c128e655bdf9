// Checkpoints. A checkpoint is a directory RUN_DIR/checkpoints/step-00000100/ with one HDF5 file for each rank, a
// manifest with the hash of every file, and an index for users of h5py (docs/formats.md, "Checkpoints"). It appears by
// the rename of a complete, synced directory, and HDF5 opens no file before its hash has been compared with the
// manifest's. The number of ranks that load may differ from the number that saved.
// checkpoint.cpp loads, checkpoint_save.cpp saves, and checkpoint_inspect.cpp serves `nibble inspect`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "dist/ranks/communicator.h"
#include "dist/zero/layout.h"
#include "quant/tensor/tensor.h"
#include "trainer/checkpoint/checkpoint_content.h"

namespace nibble {

// Writes a checkpoint and returns its directory; a checkpoint of the same step is replaced. Collective; the caller
// holds the run's lock (trainer/directory/run_directory.h). After any failure all ranks throw ExitCode::io (the message
// names the bytes needed if there is no space) or ExitCode::cannot_create, nothing is left behind, and earlier
// checkpoints are unchanged.
std::filesystem::path save_checkpoint(Communicator& communicator, const std::filesystem::path& run_directory,
                                      CheckpointState state);

// What a run asks of the disk. The steps are those of its last one and between its checkpoints (0 = only after the
// last).
struct CheckpointPlan {
  uint64_t steps = 0;
  uint64_t every = 0;
  uint64_t keep_last = 1;
  uint64_t keep_every = 0;
  uint64_t validations = 0;  // each of which may be the best, whose checkpoint is kept; 0 = no best one is kept

  // The largest number of checkpoints that are on the disk at once: those that are kept, the best one too, and the next
  // while it is written. Checkpoints that are kept for keep_every come in addition.
  uint64_t most_at_once() const;
  uint64_t most_kept_for_ever() const;
};

// Collective. Checks, before the first checkpoint of a process, that the disk has room for all that the run keeps at
// once, counting those that are there already. Throws ExitCode::io with the sizes if not; warns if there is no room for
// those that keep_every adds. A file system that does not tell its size is not checked.
void check_space_for_run(Communicator& communicator, const std::filesystem::path& run_directory,
                         const CheckpointState& state, const CheckpointPlan& plan);

// Says what find_checkpoint() does with a damaged checkpoint besides warning: leave it as it is, or rename it to
// NAME.corrupt so that it is never tried again. Only the holder of the run's lock may set checkpoints aside.
enum class DamagedCheckpoint : uint8_t { leave, set_aside };

// Collective. Returns the newest checkpoint of the run whose files all have the hashes that its manifest names. A
// damaged checkpoint is skipped with a warning that names the file. Throws ExitCode::bad_data if all are damaged and
// ExitCode::missing_input if there is none, so that no run starts from scratch by accident.
CheckpointInfo find_checkpoint(Communicator& communicator, const std::filesystem::path& run_directory,
                               DamagedCheckpoint damaged = DamagedCheckpoint::leave);

// Collective. Returns the run's checkpoint of this step. Throws as checkpoint_of_step() does
// (trainer/checkpoint/checkpoint_directory.h), and ExitCode::bad_data if the checkpoint is damaged.
CheckpointInfo find_checkpoint_of_step(Communicator& communicator, const std::filesystem::path& run_directory,
                                       uint64_t step);

// Collective. Opens a path that a user has given: the directory of one checkpoint, RUN_DIR@STEP for a run's, or a run
// directory, which means the run's newest valid checkpoint. Throws as find_checkpoint() and find_checkpoint_of_step()
// do, and ExitCode::bad_data if the one checkpoint is damaged.
CheckpointInfo open_checkpoint(Communicator& communicator, const std::filesystem::path& path);

// Fills the values of an array's slices of the tensors of `layout`, whose names say which the checkpoint's are; all
// other values become zero. They are read from all rank files that hold some of them. Throws ExitCode::bad_data if the
// checkpoint lacks the array or a tensor, or holds it in another shape or dtype. Not collective.
void load_array(const CheckpointInfo& checkpoint, const Layout& layout, const CheckpointArray& destination);

// Fills `bytes`, memory of the CPU, with an array's values for elements of a tensor (its index in the checkpoint's own
// layout), in the dtype in which they are saved. Not collective.
void load_elements(const CheckpointInfo& checkpoint, const ArrayInfo& array, uint32_t tensor, Range elements,
                   std::span<std::byte> bytes);

// Fills `destination`, which is on the CPU and has the saved array's shape and dtype. Older programs saved every such
// array as f32: where `destination` is i32, it takes their whole numbers. Throws ExitCode::bad_data if the checkpoint
// lacks the array or holds it in another shape or dtype, or a number that is not whole. Not collective.
void load_replicated(const CheckpointInfo& checkpoint, const std::string& name, const Tensor& destination);

// Which checkpoints a run keeps.
struct Retention {
  uint64_t keep_last = 1;   // the newest ones, at least 1
  uint64_t keep_every = 0;  // those whose step is a multiple of it; 0 = none
  uint64_t best = 0;        // that of this step; 0 = none
};

// Removes the checkpoints that are older than `newest` and not kept; `newest` counts as one of the newest. A checkpoint
// with a damaged manifest, and one that is a symbolic link to a directory elsewhere, is neither counted nor removed. An
// interrupted removal never leaves a part of a checkpoint under its name. Called by rank 0, which holds the lock, after
// save_checkpoint() of step `newest`.
void prune_checkpoints(const std::filesystem::path& run_directory, uint64_t newest, const Retention& retention);

// Removes what a killed save or removal has left in checkpoints/. Called by rank 0, which holds the lock, when a run
// starts.
void remove_leftovers(const std::filesystem::path& run_directory);

// Prints manifest, tensors and the state of every file of a checkpoint to standard output; `path` is as for
// open_checkpoint(). Throws ExitCode::bad_data at the end if a file is damaged.
void inspect_checkpoint(const std::filesystem::path& path);

}  // namespace nibble
