// Memory that the ranks of one machine address in common: each rank brings a part, and sees the parts of the others.
// Made by Communicator::share_memory(). Destroying it is not collective; the communicator gives the memory back later.
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

  // Empty for a rank of another machine.
  virtual std::span<std::byte> part(int rank) const = 0;
  // A rank's writes before its call and a collective after it are seen by every rank of the machine that calls this
  // after that collective.
  virtual void synchronize() = 0;
};

}  // namespace nibble
