// The reduction of a schedule in stripes: all ranks compute, also where there are fewer groups than ranks, and the sum
// has the same bits as in rows (dist/zero/tree_reduction.h).
//
// A lane forms the gradient of one micro-batch from zero. When a slot ends, each slice goes to the rank that owns it,
// and the owner adds the lanes' slices in ascending order of micro-batches to the leaf of their group, which may end
// in the middle of a slot. Leaves are joined in the tree's order as soon as they are complete. In memory that ranks
// share, an owner reads the slices where the lanes wrote them; to other machines every gradient travels once a slot,
// one piece of each shard after the other.
#pragma once

#include <memory>
#include <span>

#include "dist/device/arena.h"
#include "dist/ranks/communicator.h"
#include "dist/ranks/shared_arena.h"
#include "dist/zero/gradient_reduction.h"
#include "dist/zero/placement.h"
#include "dist/zero/schedule.h"

namespace nibble {

class StripedReduction final : public GradientReduction {
 public:
  static constexpr uint64_t usual_piece = uint64_t{1} << 20;  // elements: 4 MiB

  // Takes memory from the arena, in the measuring pass and again after commit(): one buffer of the layout's elements in
  // FP32 for a lane that has micro-batches; one shard for the open group and for each partial sum beside it, which for
  // G groups are as many as a number below G has bits that are set; and one piece of a shard for each lane of other
  // machines. Arguments are as for TreeReduction, and `owned` must outlive the object; a piece has `piece` elements or
  // fewer.
  StripedReduction(SharedArena& memory, Communicator& communicator, const Placement& owned, const Schedule& schedule,
                   uint64_t piece = usual_piece);
  // For small sums: all memory is this rank's own.
  StripedReduction(Arena& arena, Communicator& communicator, const Placement& owned, const Schedule& schedule,
                   uint64_t piece = usual_piece);
  ~StripedReduction() override;

  // Returns zeros.
  std::span<float> begin_slot() override;
  // Collective.
  void end_slot() override;
  std::span<float> reduce_scatter() override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
