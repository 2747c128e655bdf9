#include "dist/ranks/shared_arena.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "dist/base/error.h"
#include "dist/device/thread_pool.h"

namespace nibble {
namespace {

constexpr size_t bytes_at_once = size_t{1} << 16;
constexpr uint64_t nowhere = UINT64_MAX;

void copy_bytes(std::byte* to, const std::byte* from, size_t bytes) {
  parallel_for(bytes, bytes_at_once,
               [&](size_t begin, size_t end) { std::memcpy(to + begin, from + begin, end - begin); });
}

}  // namespace

SharedArena::SharedArena(std::string name, Communicator& communicator, DeviceKind device)
    : arena_(std::move(name), device),
      communicator_(communicator),
      alone_(communicator.size() == 1 || device != DeviceKind::cpu) {}

bool SharedArena::share() {
  if (!alone_) memory_ = communicator_.share_memory(arena_.planned_bytes());
  alone_ = memory_ == nullptr;
  if (!alone_) arena_.commit(memory_->part(communicator_.rank()));
  return !alone_;
}

int SharedArena::sharers() const {
  int count = 0;
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    count += machine(rank) == machine(communicator_.rank()) ? 1 : 0;
  }
  return count;
}

void SharedArena::meet() {
  if (memory_) memory_->synchronize();
  communicator_.barrier();
  if (memory_) memory_->synchronize();
}

std::vector<std::byte*> SharedArena::meet(const void* pointer) {
  const auto ranks = static_cast<size_t>(communicator_.size());
  const auto own = static_cast<size_t>(communicator_.rank());
  std::vector<std::byte*> addresses(ranks);
  addresses[own] = const_cast<std::byte*>(static_cast<const std::byte*>(pointer));
  if (!memory_) {
    communicator_.barrier();
    return addresses;
  }
  memory_->synchronize();
  struct Arrival {
    uint64_t offset;
    uint64_t meeting;  // number of this meeting of the arena, the same on all ranks
  };
  const std::span<std::byte> part = memory_->part(communicator_.rank());
  const Arrival here{pointer == nullptr ? nowhere : static_cast<uint64_t>(addresses[own] - part.data()), ++meetings_};
  NIBBLE_CHECK(pointer == nullptr || here.offset < part.size(), "a pointer into the shared arena");
  const std::vector<Arrival> arrivals = gather_each(communicator_, here);
  memory_->synchronize();
  for (size_t rank = 0; rank < ranks; ++rank) {
    const Arrival& arrival = arrivals[rank];
    NIBBLE_CHECK(arrival.meeting == meetings_, "ranks meet in different arenas");
    const std::span<std::byte> theirs = memory_->part(static_cast<int>(rank));
    if (theirs.empty() || arrival.offset == nowhere) continue;
    NIBBLE_CHECK(arrival.offset < theirs.size(), "another rank's pointer into the shared arena");
    addresses[rank] = theirs.data() + arrival.offset;
  }
  return addresses;
}

void SharedArena::all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets) {
  if (alone_) return communicator_.all_gather(data, offsets);
  const int own = communicator_.rank();
  const int size = communicator_.size();
  check_offsets(offsets, size, data.size());
  const Machines machines(this, size);
  const size_t here = machines.of(own);
  const auto part_of = [&](int rank) {
    const uint64_t begin = offsets[static_cast<size_t>(rank)];
    return data.subspan(begin, offsets[static_cast<size_t>(rank) + 1] - begin);
  };
  const std::vector<std::byte*> addresses = meet(data.data());
  if (machines.count() > 1) {
    std::vector<std::span<const std::byte>> send(static_cast<size_t>(size));
    std::vector<std::span<std::byte>> receive(static_cast<size_t>(size));
    for (int rank = 0; rank < size; ++rank) {
      const size_t machine = machines.of(rank);
      if (machine == here) continue;
      if (machines.deputy(machine, own) == rank) send[static_cast<size_t>(rank)] = part_of(own);
      if (machines.deputy(here, rank) == own) receive[static_cast<size_t>(rank)] = part_of(rank);
    }
    communicator_.exchange(send, receive);
    meet();
  }
  for (int rank = 0; rank < size; ++rank) {
    const int holder = machines.of(rank) == here ? rank : machines.deputy(here, rank);
    const std::span<std::byte> part = part_of(rank);
    if (holder == own || part.empty()) continue;
    copy_bytes(part.data(), addresses[static_cast<size_t>(holder)] + offsets[static_cast<size_t>(rank)], part.size());
  }
  meet();  // nobody may change its data before every rank has it
}

Machines::Machines(const SharedArena* memory, int ranks) {
  std::map<int, size_t> index;  // from the number of a machine
  for (int rank = 0; rank < ranks; ++rank) {
    const size_t machine = index.emplace(memory == nullptr ? rank : memory->machine(rank), index.size()).first->second;
    machine_of_.push_back(machine);
    ranks_of_.resize(index.size());
    ranks_of_[machine].push_back(rank);
  }
}

int Machines::deputy(size_t machine, int rank) const {
  const std::vector<int>& ranks = ranks_of_[machine];
  return ranks[static_cast<size_t>(rank) % ranks.size()];
}

}  // namespace nibble
