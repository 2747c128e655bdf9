#include "dist/zero/library_reduction.h"

#include <algorithm>

#include "dist/base/error.h"
#include "dist/device/device_memory.h"
#include "dist/device/profile.h"

namespace nibble {
namespace {

std::vector<Range> shards_of(const Placement& owned) {
  const std::vector<uint64_t> bounds = boundaries(owned);
  std::vector<Range> shards;
  for (size_t rank = 0; rank + 1 < bounds.size(); ++rank) shards.push_back({bounds[rank], bounds[rank + 1]});
  return shards;
}

}  // namespace

LibraryReduction::LibraryReduction(Arena& arena, DeviceCommunicator* communicator, const Placement& owned,
                                   const Schedule& schedule, uint64_t bucket)
    : communicator_(communicator),
      shards_(shards_of(owned)),
      bucket_(bucket),
      micro_batches_(schedule.micro_batches(rank())),
      slots_(schedule.slots()),
      device_(arena.device()),
      ready_(owned.layout().elements()),
      sent_(ready_) {
  NIBBLE_CHECK(communicator == nullptr ? owned.ranks() == 1 : owned.ranks() == communicator->size(),
               "the placement is for another number of ranks");
  NIBBLE_CHECK(schedule.lanes() == owned.ranks(), "every rank is a lane");
  NIBBLE_CHECK(bucket > 0, "buckets of the gradient sum");
  buffer_ = {static_cast<float*>(arena.allocate(checked_multiply(ready_, sizeof(float)))), ready_};
}

void LibraryReduction::clear() {
  zero_bytes(buffer_.data(), device_, buffer_.size_bytes());
  cleared_ = true;
}

std::span<float> LibraryReduction::begin_slot() {
  NIBBLE_CHECK(!open_, "the slot before has not ended");
  NIBBLE_CHECK(slot_ < slots_, "all slots are done");
  open_ = true;
  if (slot_ >= micro_batches_) return {};
  if (!cleared_) clear();
  return buffer_;
}

void LibraryReduction::complete(uint64_t begin, uint64_t end) {
  NIBBLE_CHECK(takes_early(), "gradients are complete in the last micro-batch only");
  NIBBLE_CHECK(begin <= end && end == ready_, "gradients become complete from the end of the buffer on");
  ready_ = begin;
  send_from(ready_);
}

void LibraryReduction::end_slot() {
  NIBBLE_CHECK(open_, "no slot has begun");
  if (takes_early()) send_from(0);
  open_ = false;
  ++slot_;
}

void LibraryReduction::send_from(uint64_t begin) {
  const ProfileScope scope(OperatorFamily::reduction, "send_buckets");
  while (sent_ > 0) {
    const uint64_t first = sent_ > bucket_ ? sent_ - bucket_ : 0;
    if (first < begin) return;
    if (communicator_ != nullptr) {
      for_each_part(shards_, {first, sent_}, [&](size_t owner, Range part) {
        communicator_->start_sum(buffer_.subspan(part.begin, part.count()), static_cast<int>(owner));
      });
    }
    sent_ = first;
  }
}

std::span<float> LibraryReduction::reduce_scatter() {
  const ProfileScope scope(OperatorFamily::reduction, "reduce_scatter");
  NIBBLE_CHECK(!open_ && slot_ == slots_, "slots are missing");
  if (!cleared_) clear();  // a rank without micro-batches adds zeros
  send_from(0);
  if (communicator_ != nullptr) communicator_->finish_sums();
  cleared_ = false;
  slot_ = 0;
  ready_ = sent_ = buffer_.size();
  const Range shard = shards_[static_cast<size_t>(rank())];
  return buffer_.subspan(shard.begin, shard.count());
}

}  // namespace nibble
