// One rank of several, of which there is only this one: what objects are planned with that ask who and how many the
// ranks are. Nothing is exchanged; whoever moves data through it fails (NIBBLE_CHECK).
#pragma once

#include "dist/ranks/communicator.h"
#include "dist/ranks/device_communicator.h"

namespace nibble {

// All ranks are on one machine and share its memory.
class PlannedRank final : public Communicator {
 public:
  PlannedRank(int rank, int size) : rank_(rank), size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int ranks_on_node() const override { return size_; }
  int machine(int /*rank*/) const override { return 0; }
  void barrier() override {}
  void broadcast(std::span<std::byte> data, int root) override;
  void all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets) override;
  void exchange(std::span<const std::span<const std::byte>> send,
                std::span<const std::span<std::byte>> receive) override;
  int64_t all_reduce_max(int64_t value) override { return value; }
  [[noreturn]] void abort(int exit_code) override;

 private:
  int rank_;
  int size_;
};

// The same rank for data on its GPU, with NCCL.
class PlannedDeviceRank final : public DeviceCommunicator {
 public:
  explicit PlannedDeviceRank(PlannedRank& host_rank) : DeviceCommunicator(host_rank) {}

  void broadcast(std::span<std::byte> data, int root) override { host().broadcast(data, root); }
  void all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets) override {
    host().all_gather(data, offsets);
  }
  void exchange(std::span<const std::span<const std::byte>> send,
                std::span<const std::span<std::byte>> receive) override {
    host().exchange(send, receive);
  }
  bool sums_by_library() const override { return true; }
};

}  // namespace nibble
