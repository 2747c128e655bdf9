// Memory that the ranks of one machine address in common: each rank brings a part and sees the parts of the others.
// Communicator::share_memory() makes it. Destroying it is not collective; the communicator frees the memory later.
#pragma once

#include <cstddef>
#include <span>

namespace nibble {

class SharedMemory {
 public:
  SharedMemory() = default;
  virtual ~SharedMemory() = default;
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // Returns a rank's part; empty for a rank of another machine.
  virtual std::span<std::byte> part(int rank) const = 0;
  // Makes writes visible: a rank calls it after writing; then all ranks enter a collective; a rank of the machine that
  // calls it after that collective sees what was written.
  virtual void synchronize() = 0;
};

}  // namespace nibble
