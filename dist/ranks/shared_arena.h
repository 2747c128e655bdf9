// An arena whose memory, if it is the CPU's, the other ranks of the machine can read in place. What they may touch when
// is settled by the caller: a rank reads what others wrote only between two collectives that all of them enter.
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
  // (dist/ranks/device_communicator.h) unless there is one rank only.
  SharedArena(std::string name, Communicator& communicator, DeviceKind device = DeviceKind::cpu);

  Arena& arena() { return arena_; }
  const Arena& arena() const { return arena_; }

  // Collective. plan() builds everything that allocates here, as in an arena's measuring pass, and may throw on some
  // ranks only. Where the ranks of a machine cannot share memory after all, plan() runs again, since then it may need
  // more, and the memory is this rank's own. Afterwards the arena hands out memory.
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

  // Ranks of the same number read each other's memory. In the planning pass: those that are going to.
  int machine(int rank) const { return alone_ ? rank : communicator_.machine(rank); }
  // How many ranks share this rank's memory, itself included.
  int sharers() const;

  // Collective: every rank has arrived, and what any rank of this machine wrote before is seen by the others.
  void meet();
  // The same, and tells where each rank's `pointer`, into its arena or null, is seen by this rank. Null for ranks of
  // other machines.
  std::vector<std::byte*> meet(const void* pointer);

  // As Communicator::all_gather; the data of every rank lies in this arena. Each part crosses from machine to machine
  // once.
  void all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets);

 private:
  bool share();

  Arena arena_;
  Communicator& communicator_;
  std::unique_ptr<SharedMemory> memory_;
  bool alone_;
  uint64_t meetings_ = 0;
};

// The ranks of each machine, and who of them deals with what comes from or goes to ranks elsewhere.
class Machines {
 public:
  explicit Machines(const SharedArena* memory, int ranks);  // without memory every rank is a machine of its own

  size_t count() const { return ranks_of_.size(); }
  size_t of(int rank) const { return machine_of_[static_cast<size_t>(rank)]; }
  // Ascending.
  std::span<const int> ranks(size_t machine) const { return ranks_of_[machine]; }
  // The rank of `machine` that exchanges messages with `rank`, of another machine.
  int deputy(size_t machine, int rank) const;

 private:
  std::vector<size_t> machine_of_;          // [ranks]
  std::vector<std::vector<int>> ranks_of_;  // [machines][ranks there]
};

}  // namespace nibble
