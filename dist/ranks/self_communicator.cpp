#include "dist/ranks/self_communicator.h"

#include <unistd.h>

#include <cstdio>

namespace nibble {

void SelfCommunicator::broadcast(std::span<std::byte>, int root) {
  NIBBLE_CHECK(root == 0, "root rank");
}

void SelfCommunicator::all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets) {
  check_offsets(offsets, size(), data.size());
}

void SelfCommunicator::exchange(std::span<const std::span<const std::byte>> send,
                                std::span<const std::span<std::byte>> receive) {
  NIBBLE_CHECK(send.size() == 1 && receive.size() == 1, "one span a rank");
}

void SelfCommunicator::abort(int exit_code) {
  std::fflush(nullptr);
  _exit(exit_code);
}

}  // namespace nibble
