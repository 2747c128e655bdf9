// A checkpoint while it is saved, in four parts, so that a later caller can write files while the run goes on. Today
// save_checkpoint() (trainer/checkpoint/checkpoint.h) calls them one after the other. Implemented in
// checkpoint_save.cpp.
#pragma once

#include <filesystem>
#include <memory>

#include "dist/ranks/communicator.h"
#include "trainer/checkpoint/checkpoint_content.h"

namespace nibble {

class Snapshot {
 public:
  // Collective. Checks the state, compares its size with the free space of the disk, and makes the directory in which
  // the files are written. Throws ExitCode::io or cannot_create on all ranks. After any failure from here on, the
  // leader calls remove_leftovers().
  static Snapshot plan(Communicator& communicator, const std::filesystem::path& run_directory, CheckpointState state);
  Snapshot(Snapshot&&) noexcept;
  ~Snapshot();

  // Copies this rank's values to memory of the CPU. Values that are there already are not copied: they must not change
  // until write() has returned.
  void take();
  // Writes, syncs and reads back this rank's file. It uses neither the communicator nor a device, so that another
  // thread may call it; nobody else may use HDF5 meanwhile. Throws ExitCode::io.
  void write();
  // Collective, after write() has succeeded on all ranks. Writes index, configuration and manifest, and gives the
  // directory its name, which is returned.
  std::filesystem::path publish(Communicator& communicator);

 private:
  struct Parts;
  explicit Snapshot(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace nibble
