// Reductions of gradients: how the gradients of a step's groups become one sum, of which each rank holds its shard.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "dist/base/enum_names.h"
#include "dist/ranks/communicator.h"
#include "dist/ranks/shared_arena.h"
#include "dist/zero/placement.h"

namespace nibble {

// The groups [begin, end) of a step that a rank has.
struct GroupRange {
  uint64_t begin = 0;
  uint64_t end = 0;
};
GroupRange groups_of_rank(uint64_t groups, int rank, int ranks);

class GradientReduction {
 public:
  virtual ~GradientReduction() = default;

  virtual GroupRange local_groups() const = 0;
  // Returns true if ranks begin to exchange sums before their last group has ended. A rank that throws in a group then
  // leaves the others waiting on their devices, where no error can be agreed on: it has to end the job.
  virtual bool exchanges_in_groups() const { return false; }

  // Starts a group; called before its first micro-batch. Returns a buffer of the layout's elements in FP32, to
  // which the group's gradients are added. This and all other spans are memory of the arena's device.
  virtual std::span<float> begin_group() = 0;
  // Announces, in the backward pass of the last micro-batch of this rank's last group, that gradients [begin, end) of
  // the buffer are complete once the compute stream gets to this point. Ranges follow each other from the end of the
  // buffer to its beginning. Gradients that are not announced are complete at end_group(). A reduction may ignore the
  // call.
  virtual void parameters_ready(uint64_t begin, uint64_t end) {
    static_cast<void>(begin);
    static_cast<void>(end);
  }
  // Ends a group; called after its last micro-batch. This rank's groups come in order.
  virtual void end_group() = 0;
  // Collective, after the last group. Returns this rank's part of the total, as the placement has it. The span stays
  // valid until the next begin_group().
  virtual std::span<float> reduce_scatter() = 0;
};

enum class ReductionKind : uint8_t {
  tree,  // TreeReduction: the same bits for any number of ranks
  nccl   // LibraryReduction: faster between GPUs, with NCCL's order of additions
};
constexpr auto enum_names(ReductionKind) {
  return std::to_array<EnumName<ReductionKind>>({{ReductionKind::tree, "tree"}, {ReductionKind::nccl, "nccl"}});
}

// Takes memory from the arena, in the measuring pass and again after commit(). Throws ExitCode::bad_config for `nccl`
// if NCCL is not in use: on the CPU, or without the library.
std::unique_ptr<GradientReduction> make_gradient_reduction(ReductionKind kind, SharedArena& memory,
                                                           Communicator& communicator, const Placement& owned,
                                                           uint64_t groups);

}  // namespace nibble
