// Sums that NCCL forms between ranks while the backward pass still runs. They are fast, but their bits depend on the
// number of ranks. A rank's micro-batches accumulate in one buffer, which is cut into buckets at positions that depend
// only on its size; a bucket goes to the ranks that own its parts as soon as all of it is ready.
#pragma once

#include <memory>

#include "dist/ranks/device_communicator.h"
#include "dist/zero/gradient_reduction.h"

namespace nibble {

class LibraryReduction final : public GradientReduction {
 public:
  static constexpr uint64_t usual_bucket = uint64_t{8} << 20;  // elements: 32 MiB

  // Takes one FP32 buffer of the layout's elements from the arena. `owned` gives each rank one range, and these follow
  // each other. `communicator` is null for one rank; otherwise its sums_by_library() is true.
  LibraryReduction(Arena& arena, DeviceCommunicator* communicator, const Placement& owned, const Schedule& schedule,
                   uint64_t bucket = usual_bucket);

  std::span<float> begin_slot() override;
  // Gradients are complete in the lane's last micro-batch only.
  bool takes_early() const override { return open_ && slot_ + 1 == micro_batches_; }
  void complete(uint64_t begin, uint64_t end) override;
  void end_slot() override;
  std::span<float> reduce_scatter() override;

 private:
  int rank() const { return communicator_ == nullptr ? 0 : communicator_->rank(); }
  void clear();
  // Sends every bucket that lies in [begin, end of the buffer) and has not been sent yet.
  void send_from(uint64_t begin);

  DeviceCommunicator* communicator_;
  std::vector<Range> shards_;  // [ranks]
  uint64_t bucket_;
  uint64_t micro_batches_;  // of this lane, in its first slots
  uint64_t slots_;
  DeviceKind device_;
  std::span<float> buffer_;
  bool open_ = false;
  bool cleared_ = false;  // since the last reduce_scatter()
  uint64_t slot_ = 0;     // the open slot, or the next one
  uint64_t ready_;        // all gradients from here on are complete
  uint64_t sent_;         // all buckets from here on are under way
};

}  // namespace nibble
