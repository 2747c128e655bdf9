// How the gradients of a step's groups become one sum, each rank holding its shard of it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "dist/ranks/communicator.h"
#include "dist/ranks/shared_arena.h"
#include "dist/zero/partition.h"

namespace nibble {

// Groups [begin, end) of this rank out of `groups`.
struct GroupRange {
  uint64_t begin = 0;
  uint64_t end = 0;
};
GroupRange groups_of_rank(uint64_t groups, int rank, int ranks);

class GradientReduction {
 public:
  virtual ~GradientReduction() = default;

  virtual GroupRange local_groups() const = 0;

  // Spans are memory of the arena's device.
  // Before a group's first micro-batch: a buffer of partition.elements() floats, to which its gradients are added.
  virtual std::span<float> begin_group() = 0;
  // In the backward pass of the last micro-batch of this rank's last group: gradients [begin, end) of the buffer are
  // complete once the compute stream gets here. Ranges follow each other from the end of the buffer to its beginning.
  // What is not announced is complete at end_group(). Not every reduction makes use of it.
  virtual void parameters_ready(uint64_t begin, uint64_t end) {
    static_cast<void>(begin);
    static_cast<void>(end);
  }
  // After its last one. Call for this rank's groups in order.
  virtual void end_group() = 0;
  // Collective, after the last group: this rank's shard [partition.begin(rank), partition.end(rank)) of the total. The
  // span stays valid until the next begin_group().
  virtual std::span<float> reduce_scatter() = 0;
};

enum class ReductionKind : uint8_t {
  tree,  // TreeReduction: the same bits for any number of ranks
  nccl   // LibraryReduction: faster between GPUs, with NCCL's order of additions
};

// Memory comes from the arena, in the measuring pass and again after commit(). Throws ExitCode::bad_config for nccl
// where NCCL is not in use: on the CPU, or without the library.
std::unique_ptr<GradientReduction> make_gradient_reduction(ReductionKind kind, SharedArena& memory,
                                                           Communicator& communicator, const Partition& partition,
                                                           uint64_t groups);

}  // namespace nibble
