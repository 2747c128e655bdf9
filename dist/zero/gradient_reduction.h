// Reductions of gradients: how the gradients of a step's micro-batches become one sum, of which each rank holds its
// shard. Every rank walks all slots of the step's schedule, in which it is the lane of its own number.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "dist/base/enum_names.h"
#include "dist/ranks/communicator.h"
#include "dist/ranks/shared_arena.h"
#include "dist/zero/placement.h"
#include "dist/zero/schedule.h"

namespace nibble {

class GradientReduction {
 public:
  virtual ~GradientReduction() = default;

  // Begins the next slot. Returns a buffer of the layout's elements in FP32, to which the gradient of this lane's
  // micro-batch is added: it holds zeros, or the sum of the micro-batches before it in its group. Empty if the lane is
  // idle in the slot. This and all other spans are memory of the arena's device.
  virtual std::span<float> begin_slot() = 0;
  // Returns whether complete() is of use in this slot.
  virtual bool takes_early() const { return false; }
  // Announces, in the backward pass, that the micro-batch adds no more to gradients [begin, end) of the buffer once the
  // compute stream gets to this point. Ranges follow each other from the end of the buffer to its beginning. Gradients
  // that are not announced are complete at end_slot().
  virtual void complete(uint64_t begin, uint64_t end) {
    static_cast<void>(begin);
    static_cast<void>(end);
  }
  virtual void end_slot() = 0;
  // Collective, after the last slot. Returns this rank's part of the total, as the placement has it. The span stays
  // valid until the next begin_slot().
  virtual std::span<float> reduce_scatter() = 0;
};

enum class ReductionKind : uint8_t {
  tree,  // TreeReduction or StripedReduction: the same bits for any number of ranks
  nccl   // LibraryReduction: faster between GPUs, with NCCL's order of additions
};
constexpr auto enum_names(ReductionKind) {
  return std::to_array<EnumName<ReductionKind>>({{ReductionKind::tree, "tree"}, {ReductionKind::nccl, "nccl"}});
}

// Takes memory from the arena, in the measuring pass and again after commit(). Throws ExitCode::bad_config for `nccl`
// if NCCL is not in use: on the CPU, or without the library.
std::unique_ptr<GradientReduction> make_gradient_reduction(ReductionKind kind, SharedArena& memory,
                                                           Communicator& communicator, const Placement& owned,
                                                           const Schedule& schedule);
// For small sums: by the tree, and all memory is this rank's own.
std::unique_ptr<GradientReduction> make_small_reduction(Arena& arena, Communicator& communicator,
                                                        const Placement& owned, const Schedule& schedule);

}  // namespace nibble
