// An MPI-3 shared-memory window of the ranks of one machine, for the MPI communicator. Its calls block; the caller
// makes them under a Deadline, when all ranks have just arrived.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dist/ranks/shared_memory.h"

namespace nibble {

class MpiWindow {
 public:
  // Collective over `machine`. `bytes` is the size of this rank's part. problem() says afterwards whether it succeeded.
  MpiWindow(MPI_Comm machine, size_t bytes);
  // Collective over `machine`. Frees the window.
  void free();

  // Returns why there is no memory; empty if there is.
  const std::string& problem() const { return problem_; }
  // Returns the part of a rank of the machine's communicator: [bytes], page-aligned.
  std::span<std::byte> part(int rank) const { return parts_[static_cast<size_t>(rank)]; }
  void synchronize() { MPI_Win_sync(window_); }

 private:
  MPI_Win window_ = MPI_WIN_NULL;
  std::string problem_;
  std::vector<std::span<std::byte>> parts_;
};

// The view that one rank of the run has of a window; the communicator frees the window.
class WindowMemory final : public SharedMemory {
 public:
  // `machines` holds the machine of each rank of the run. `own` is this rank.
  WindowMemory(std::shared_ptr<MpiWindow> window, std::span<const int> machines, int own);
  std::span<std::byte> part(int rank) const override { return parts_[static_cast<size_t>(rank)]; }
  void synchronize() override { window_->synchronize(); }

 private:
  std::shared_ptr<MpiWindow> window_;
  std::vector<std::span<std::byte>> parts_;  // [ranks of the run]
};

// Returns why windows of `bytes` for all ranks of this machine together would not fit; empty if they will. The caller
// asks before it makes a window, because Open MPI's other ranks wait for ever if the rank that creates the file fails.
std::string shared_memory_problem(size_t bytes);

// Gives the memory its pages now, in parallel, because a page that is missing in a full file system ends the process
// with SIGBUS when it is touched later. Returns why it failed; empty on success.
std::string populate(std::span<std::byte> memory);

// Bounds a call of MPI that cannot be polled: a thread calls expired() if the object still lives after `seconds` > 0.
class Deadline {
 public:
  Deadline(double seconds, std::function<void()> expired);
  ~Deadline();
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
