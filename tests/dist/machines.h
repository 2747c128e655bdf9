// Ranks of one machine that count as ranks of several machines.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "dist/ranks/communicator.h"
#include "dist/ranks/shared_memory.h"
#include "mpi_environment.h"

namespace nibble {

struct Shape {
  const char* name;
  int (*machine)(int rank);  // any number a machine; null: no two ranks can share memory
};

inline const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = {{"one machine", [](int) { return 0; }},
                                         {"no sharing", nullptr},
                                         {"pairs", [](int rank) { return rank / 2; }},
                                         {"dealt out", [](int rank) { return rank % 2; }},
                                         {"one and the rest", [](int rank) { return rank == 0 ? 0 : 1; }}};
  return all;
}

class ShapedCommunicator final : public Communicator {
 public:
  explicit ShapedCommunicator(const Shape& shape) : shape_(shape) {}

  int rank() const override { return communicator().rank(); }
  int size() const override { return communicator().size(); }
  int ranks_on_node() const override { return communicator().ranks_on_node(); }
  void barrier() override { communicator().barrier(); }
  void broadcast(std::span<std::byte> data, int root) override { communicator().broadcast(data, root); }
  void all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets) override {
    communicator().all_gather(data, offsets);
  }
  void exchange(std::span<const std::span<const std::byte>> send,
                std::span<const std::span<std::byte>> receive) override {
    for (size_t rank = 0; rank < send.size(); ++rank) bytes_sent += send[rank].size();
    communicator().exchange(send, receive);
  }
  int64_t all_reduce_max(int64_t value) override { return communicator().all_reduce_max(value); }
  [[noreturn]] void abort(int exit_code) override {
    communicator().abort(exit_code);
    std::abort();
  }

  // Before a failed attempt shows that nobody can share memory, all ranks expect to share it.
  int machine(int rank) const override {
    int lowest = 0;
    while (shape_.machine != nullptr && shape_.machine(lowest) != shape_.machine(rank)) ++lowest;
    return lowest;
  }
  std::unique_ptr<SharedMemory> share_memory(size_t bytes) override {
    if (shape_.machine == nullptr) return nullptr;
    std::unique_ptr<SharedMemory> whole = communicator().share_memory(bytes);
    return whole == nullptr ? nullptr : std::make_unique<Part>(std::move(whole), *this);
  }

  size_t bytes_sent = 0;  // sent by exchange()

 private:
  class Part final : public SharedMemory {
   public:
    Part(std::unique_ptr<SharedMemory> whole, const ShapedCommunicator& ranks)
        : whole_(std::move(whole)), ranks_(ranks) {}
    std::span<std::byte> part(int rank) const override {
      return ranks_.machine(rank) == ranks_.machine(ranks_.rank()) ? whole_->part(rank) : std::span<std::byte>();
    }
    void synchronize() override { whole_->synchronize(); }

   private:
    std::unique_ptr<SharedMemory> whole_;
    const ShapedCommunicator& ranks_;
  };

  Shape shape_;
};

}  // namespace nibble
