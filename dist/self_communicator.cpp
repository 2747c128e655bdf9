#include "dist/self_communicator.h"

#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace nibble {

void SelfCommunicator::broadcast(std::span<std::byte>, int root) {
  NIBBLE_CHECK(root == 0, "root rank");
}

void SelfCommunicator::all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets) {
  check_offsets(offsets, size(), data.size());
}

void SelfCommunicator::all_to_all(std::span<const std::byte> send, std::span<const uint64_t> send_offsets,
                                  std::span<std::byte> receive, std::span<const uint64_t> receive_offsets) {
  check_offsets(send_offsets, size(), send.size());
  check_offsets(receive_offsets, size(), receive.size());
  const uint64_t bytes = send_offsets[1] - send_offsets[0];
  NIBBLE_CHECK(receive_offsets[1] - receive_offsets[0] == bytes, "sizes sent and received differ");
  if (bytes > 0) std::memmove(receive.data() + receive_offsets[0], send.data() + send_offsets[0], bytes);
}

void SelfCommunicator::abort(int exit_code) {
  std::fflush(nullptr);
  _exit(exit_code);
}

}  // namespace nibble
