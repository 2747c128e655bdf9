// An MPI-3 shared-memory window of the ranks of one machine, for the MPI communicator. Its calls block; the caller
// makes them where all ranks have just arrived, under a Deadline.
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
  // Collective over `machine`. bytes: of this rank. Afterwards problem() says whether it came about.
  MpiWindow(MPI_Comm machine, size_t bytes);
  // Collective over `machine`.
  void free();

  // Why there is no memory here; empty if there is.
  const std::string& problem() const { return problem_; }
  // [bytes] of a rank of the machine's communicator, page-aligned.
  std::span<std::byte> part(int rank) const { return parts_[static_cast<size_t>(rank)]; }
  void synchronize() { MPI_Win_sync(window_); }

 private:
  MPI_Win window_ = MPI_WIN_NULL;
  std::string problem_;
  std::vector<std::span<std::byte>> parts_;
};

// One rank's view of a window; the communicator frees it.
class WindowMemory final : public SharedMemory {
 public:
  // machines: of each rank of the run. own: this rank.
  WindowMemory(std::shared_ptr<MpiWindow> window, std::span<const int> machines, int own);
  std::span<std::byte> part(int rank) const override { return parts_[static_cast<size_t>(rank)]; }
  void synchronize() override { window_->synchronize(); }

 private:
  std::shared_ptr<MpiWindow> window_;
  std::vector<std::span<std::byte>> parts_;  // [ranks of the run]
};

// Why windows of `bytes` for all ranks of this machine together would not fit; empty if they will. Asked first, because
// Open MPI's other ranks wait for ever if the one that makes the file fails.
std::string shared_memory_problem(size_t bytes);

// Gives the memory its pages now, in parallel, because a full file system ends a process that touches a missing page
// later with SIGBUS. Returns why it could not; empty on success.
std::string populate(std::span<std::byte> memory);

// A bound for calls of MPI that cannot be polled: while it lives, a thread waits, and calls expired() after seconds >
// 0.
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
