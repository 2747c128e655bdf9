// A communicator of one rank: every collective is a copy or does nothing. It needs no MPI and no launcher.
#pragma once

#include "dist/ranks/communicator.h"

namespace nibble {

class SelfCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  int ranks_on_node() const override { return 1; }
  void barrier() override {}
  void broadcast(std::span<std::byte> data, int root) override;
  void all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets) override;
  void exchange(std::span<const std::span<const std::byte>> send,
                std::span<const std::span<std::byte>> receive) override;
  int64_t all_reduce_max(int64_t value) override { return value; }
  [[noreturn]] void abort(int exit_code) override;
};

}  // namespace nibble
