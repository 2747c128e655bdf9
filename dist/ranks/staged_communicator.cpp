#include "dist/ranks/staged_communicator.h"

#include <algorithm>
#include <vector>

#include "dist/device/cuda_device.h"
#include "dist/device/device_memory.h"
#include "dist/device/dispatch.h"

namespace nibble {
namespace {

std::byte* allocate(DeviceKind device, size_t bytes) {
  if constexpr (built_with_cuda) {
    if (device == DeviceKind::cuda) return static_cast<std::byte*>(cuda::allocate_pinned(bytes));
  }
  return new std::byte[bytes];
}

void release(DeviceKind device, std::byte* memory) noexcept {
  if constexpr (built_with_cuda) {
    if (device == DeviceKind::cuda) return cuda::release_pinned(memory);
  }
  delete[] memory;
}

// Returns the part of `data` that belongs to the strip of `bytes` beginning at `begin`.
template <class T>
std::span<T> strip_of(std::span<T> data, size_t begin, size_t bytes) {
  const size_t from = std::min(begin, data.size());
  return data.subspan(from, std::min(bytes, data.size() - from));
}

}  // namespace

struct StagedCommunicator::Buffer {
  const DeviceKind device;
  const size_t bytes;
  std::byte* const data;

  Buffer(DeviceKind kind, size_t wanted) : device(kind), bytes(wanted), data(allocate(kind, wanted)) {}
  ~Buffer() { release(device, data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
};

StagedCommunicator::StagedCommunicator(Communicator& host_ranks, DeviceKind device, size_t strip_bytes)
    : DeviceCommunicator(host_ranks), device_(device), strip_bytes_(strip_bytes) {
  NIBBLE_CHECK(strip_bytes > 0, "length of a strip");
}

StagedCommunicator::~StagedCommunicator() = default;

std::span<std::byte> StagedCommunicator::memory(std::unique_ptr<Buffer>& buffer, size_t bytes) const {
  if (buffer == nullptr || buffer->bytes < bytes) {
    buffer.reset();
    buffer = std::make_unique<Buffer>(device_, bytes);
  }
  return {buffer->data, bytes};
}

void StagedCommunicator::to_host(std::span<const std::byte> from, std::span<std::byte> to) const {
  copy_bytes({.to = to.data(),
              .to_device = DeviceKind::cpu,
              .from = from.data(),
              .from_device = device_,
              .bytes = from.size()});
}

void StagedCommunicator::to_device(std::span<const std::byte> from, std::span<std::byte> to) const {
  copy_bytes({.to = to.data(),
              .to_device = device_,
              .from = from.data(),
              .from_device = DeviceKind::cpu,
              .bytes = from.size()});
}

void StagedCommunicator::broadcast(std::span<std::byte> data, int root) {
  for (size_t begin = 0; begin < data.size(); begin += strip_bytes_) {
    const std::span<std::byte> strip = strip_of(data, begin, strip_bytes_);
    const std::span<std::byte> staged = memory(outgoing_, strip.size());
    if (rank() == root) to_host(strip, staged);
    host().broadcast(staged, root);
    if (rank() != root) to_device(staged, strip);
  }
}

void StagedCommunicator::all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets) {
  check_offsets(offsets, size(), data.size());
  const auto ranks = static_cast<size_t>(size());
  const auto own = static_cast<size_t>(rank());
  std::vector<std::span<std::byte>> parts;
  for (size_t other = 0; other < ranks; ++other) {
    parts.push_back(data.subspan(offsets[other], offsets[other + 1] - offsets[other]));
  }
  const std::vector<std::span<const std::byte>> send(ranks, parts[own]);
  exchange(send, parts);
}

void StagedCommunicator::exchange(std::span<const std::span<const std::byte>> send,
                                  std::span<const std::span<std::byte>> receive) {
  const auto ranks = static_cast<size_t>(size());
  NIBBLE_CHECK(send.size() == ranks && receive.size() == ranks, "one span a rank");
  size_t longest = 0;
  for (size_t other = 0; other < ranks; ++other) {
    if (other == static_cast<size_t>(rank())) continue;
    longest = std::max({longest, send[other].size(), receive[other].size()});
  }
  // Every rank takes part in as many strips as the rank that has the most.
  const auto strips = static_cast<size_t>(all_reduce_max(static_cast<int64_t>(div_ceil(longest, strip_bytes_))));
  for (size_t strip = 0; strip < strips; ++strip) {
    std::vector<std::span<const std::byte>> send_now(ranks);
    std::vector<std::span<std::byte>> receive_now(ranks);
    for (size_t other = 0; other < ranks; ++other) {
      if (other == static_cast<size_t>(rank())) continue;
      send_now[other] = strip_of(send[other], strip * strip_bytes_, strip_bytes_);
      receive_now[other] = strip_of(receive[other], strip * strip_bytes_, strip_bytes_);
    }
    exchange_strip(send_now, receive_now);
  }
}

void StagedCommunicator::exchange_strip(std::span<const std::span<const std::byte>> send,
                                        std::span<const std::span<std::byte>> receive) {
  size_t bytes_out = 0;
  size_t bytes_in = 0;
  for (const auto& part : send) bytes_out += part.size();
  for (const auto& part : receive) bytes_in += part.size();
  std::span<std::byte> free_out = memory(outgoing_, bytes_out);
  std::span<std::byte> free_in = memory(incoming_, bytes_in);
  std::vector<std::span<const std::byte>> staged_out;
  std::vector<std::span<std::byte>> staged_in;
  std::span<const std::byte> last;
  size_t last_staged = 0;
  for (size_t other = 0; other < send.size(); ++other) {
    // In an all-gather all other ranks get the same part, so it crosses the bus once.
    const bool same = !staged_out.empty() && !send[other].empty() && send[other].data() == last.data() &&
                      send[other].size() == last.size();
    if (same) {
      staged_out.push_back(staged_out[last_staged]);
    } else {
      to_host(send[other], free_out.first(send[other].size()));
      if (!send[other].empty()) last = send[other], last_staged = other;
      staged_out.push_back(free_out.first(send[other].size()));
      free_out = free_out.subspan(send[other].size());
    }
    staged_in.push_back(free_in.first(receive[other].size()));
    free_in = free_in.subspan(receive[other].size());
  }
  host().exchange(staged_out, staged_in);
  for (size_t other = 0; other < receive.size(); ++other) to_device(staged_in[other], receive[other]);
}

}  // namespace nibble
