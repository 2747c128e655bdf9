#include "dist/zero/library_reduction.h"

#include <algorithm>

#include "dist/base/error.h"
#include "dist/device/device_memory.h"
#include "dist/device/profile.h"
#include "dist/zero/tree_reduction.h"

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
                                   uint64_t groups, uint64_t bucket)
    : communicator_(communicator),
      shards_(shards_of(owned)),
      bucket_(bucket),
      local_(groups_of_rank(groups, rank(), owned.ranks())),
      device_(arena.device()),
      next_group_(local_.begin),
      ready_(owned.layout().elements()),
      sent_(ready_) {
  NIBBLE_CHECK(communicator == nullptr ? owned.ranks() == 1 : owned.ranks() == communicator->size(),
               "the placement is for another number of ranks");
  NIBBLE_CHECK(bucket > 0 && groups > 0, "buckets and groups of the gradient sum");
  buffer_ = {static_cast<float*>(arena.allocate(checked_multiply(ready_, sizeof(float)))), ready_};
}

void LibraryReduction::clear() {
  zero_bytes(buffer_.data(), device_, buffer_.size_bytes());
  cleared_ = true;
}

std::span<float> LibraryReduction::begin_group() {
  NIBBLE_CHECK(!open_, "the group before has not ended");
  NIBBLE_CHECK(next_group_ < local_.end, "all groups of this rank are done");
  if (!cleared_) clear();
  open_ = true;
  return buffer_;
}

void LibraryReduction::parameters_ready(uint64_t begin, uint64_t end) {
  NIBBLE_CHECK(in_last_group(), "gradients are complete in the last group only");
  NIBBLE_CHECK(begin <= end && end == ready_, "gradients become complete from the end of the buffer on");
  ready_ = begin;
  send_from(ready_);
}

void LibraryReduction::end_group() {
  NIBBLE_CHECK(open_, "no group has begun");
  if (in_last_group()) send_from(0);
  open_ = false;
  ++next_group_;
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
  NIBBLE_CHECK(!open_ && next_group_ == local_.end, "groups are missing");
  if (!cleared_) clear();  // a rank without groups adds zeros
  send_from(0);
  if (communicator_ != nullptr) communicator_->finish_sums();
  cleared_ = false;
  next_group_ = local_.begin;
  ready_ = sent_ = buffer_.size();
  const Range shard = shards_[static_cast<size_t>(rank())];
  return buffer_.subspan(shard.begin, shard.count());
}

std::unique_ptr<GradientReduction> make_gradient_reduction(ReductionKind kind, SharedArena& memory,
                                                           Communicator& communicator, const Placement& owned,
                                                           uint64_t groups) {
  if (kind == ReductionKind::tree) return std::make_unique<TreeReduction>(memory, communicator, owned, groups);
  auto* const ranks = dynamic_cast<DeviceCommunicator*>(&communicator);
  const bool possible = memory.arena().device() == DeviceKind::cuda &&
                        (communicator.size() == 1 || (ranks != nullptr && ranks->sums_by_library()));
  if (!possible) {
    throw Error(ExitCode::bad_config, "gradients cannot be summed by NCCL: it is not in use",
                "set comm.reduction=tree, or train on GPUs with NCCL (libnccl.so.2)");
  }
  return std::make_unique<LibraryReduction>(memory.arena(), communicator.size() == 1 ? nullptr : ranks, owned, groups);
}

}  // namespace nibble
