// An arena whose memory, if it is the CPU's, the other ranks of the machine can read in place. The caller decides who
// may touch what and when: a rank reads what others wrote only between two collectives that all of them enter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dist/device/arena.h"
#include "dist/ranks/communicator.h"
#include "dist/ranks/shared_memory.h"

namespace nibble {

class SharedArena {
 public:
  // On a GPU every rank is a machine of its own, and the communicator is one of device memory
  // (dist/ranks/device_communicator.h), unless there is only one rank.
  SharedArena(std::string name, Communicator& communicator, DeviceKind device = DeviceKind::cpu);

  Arena& arena() { return arena_; }
  const Arena& arena() const { return arena_; }

  // Collective. plan() builds everything that allocates here, as in an arena's measuring pass, and may throw on some
  // ranks only. If the ranks of a machine cannot share memory after all, plan() runs again, because more memory may be
  // needed then, and the memory belongs to this rank alone. Afterwards the arena hands out memory.
  template <class Plan>
  void commit(const Plan& plan) {
    run_together(communicator_, plan);
    if (share()) return;
    run_together(communicator_, [&] {
      arena_.release(0);
      plan();
      arena_.commit();
    });
  }

  // Returns the machine of a rank; ranks with the same number read each other's memory. While planning, they are the
  // ranks that are going to share it.
  int machine(int rank) const { return alone_ ? rank : communicator_.machine(rank); }
  // Returns how many ranks share this rank's memory, this rank included.
  int sharers() const;

  // Collective. When it returns, every rank has arrived, and the other ranks of the machine see what any of them wrote
  // before.
  void meet();
  // Does the same and returns where this rank sees each rank's `pointer`, which points into that rank's arena or is
  // null. Entries of ranks of other machines are null.
  std::vector<std::byte*> meet(const void* pointer);

  // Like Communicator::all_gather, for data of every rank that lies in this arena. Each part crosses from machine to
  // machine once.
  void all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets);

 private:
  bool share();

  Arena arena_;
  Communicator& communicator_;
  std::unique_ptr<SharedMemory> memory_;
  bool alone_;
  uint64_t meetings_ = 0;
};

// The ranks of each machine, and which of them exchange data with ranks of other machines.
class Machines {
 public:
  explicit Machines(const SharedArena* memory, int ranks);  // without memory every rank is a machine of its own

  size_t count() const { return ranks_of_.size(); }
  size_t of(int rank) const { return machine_of_[static_cast<size_t>(rank)]; }
  // Returns the ranks of a machine in ascending order.
  std::span<const int> ranks(size_t machine) const { return ranks_of_[machine]; }
  // Returns the rank of `machine` that exchanges messages with `rank`, which is on another machine.
  int deputy(size_t machine, int rank) const;

 private:
  std::vector<size_t> machine_of_;          // [ranks]
  std::vector<std::vector<int>> ranks_of_;  // [machines][ranks there]
};

}  // namespace nibble
