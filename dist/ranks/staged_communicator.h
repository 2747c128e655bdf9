// Ranks whose device memory passes through memory of their CPUs and the host communicator, for GPUs without NCCL.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "dist/ranks/device_communicator.h"

namespace nibble {

class StagedCommunicator final : public DeviceCommunicator {
 public:
  // strip_bytes is how much of each other rank's part lies in memory of the CPU at once, in each direction.
  explicit StagedCommunicator(Communicator& host_ranks, DeviceKind device = DeviceKind::cuda,
                              size_t strip_bytes = size_t{16} << 20);
  ~StagedCommunicator() override;

  void broadcast(std::span<std::byte> data, int root) override;
  void all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets) override;
  void exchange(std::span<const std::span<const std::byte>> send,
                std::span<const std::span<std::byte>> receive) override;

 private:
  struct Buffer;
  // Returns at least `bytes` of memory that the device can read and write; the buffer grows if need be.
  std::span<std::byte> memory(std::unique_ptr<Buffer>& buffer, size_t bytes) const;
  void to_host(std::span<const std::byte> from, std::span<std::byte> to) const;
  void to_device(std::span<const std::byte> from, std::span<std::byte> to) const;
  void exchange_strip(std::span<const std::span<const std::byte>> send, std::span<const std::span<std::byte>> receive);

  DeviceKind device_;
  size_t strip_bytes_;
  std::unique_ptr<Buffer> outgoing_, incoming_;  // grow to what the largest operation needs, then stay
};

}  // namespace nibble
