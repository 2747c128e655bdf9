// Sums over the global list of micro-batches in one fixed order for any number of ranks (law 4, docs/architecture.md).
//
// The list is cut into groups of a configured size. Inside a group, gradients accumulate left to right in one buffer
// (the leaf). Groups are the leaves of a binary tree: node (first, length), with length a power of two and first a
// multiple of it, is the sum of its two halves, left + right, element by element in FP32; a half beyond the last group
// is absent, and then the node is its left half. Ranks own contiguous ranges of groups. A rank folds its own groups
// into maximal tree nodes; the ranks of a machine together fold the nodes of their machine before anything is sent to
// another machine; and the rank that owns a shard folds the rest.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "dist/device/arena.h"
#include "dist/ranks/communicator.h"
#include "dist/ranks/shared_arena.h"
#include "dist/zero/gradient_reduction.h"
#include "dist/zero/placement.h"
#include "dist/zero/schedule.h"

namespace nibble {

// Returns the sum of per-group values in the tree's order, the same on every rank. `values` has one entry a group.
double tree_sum(std::span<const double> values);
// Returns the sum of values of micro-batches in the order of the gradient's sum: from 0 left to right inside each
// group, then the tree. `values` has one entry a micro-batch.
double sum_by_groups(const MicroBatchGroups& groups, std::span<const double> values);

// The reduction of a schedule in rows.
class TreeReduction final : public GradientReduction {
 public:
  // Takes memory (partial sums, exchange buffers) from the arena, in the measuring pass and again after commit(). With
  // g groups on this rank it is at most log2(g) + 1 buffers of the layout's elements in FP32 if the rank's first group
  // is a multiple of a power of two that is at least g (one rank; a power of two of ranks and of groups), else at most
  // twice that; and one shard for each partial sum of every other machine. Ranks that share the arena's memory read
  // each other's partial sums in place; without sharing, as on GPUs, every rank is a machine of its own. Sums are
  // formed on the arena's device; on a GPU the communicator is one of device memory, unless there is only one rank.
  // `owned` says which elements of the sum each rank gets.
  TreeReduction(SharedArena& memory, Communicator& communicator, const Placement& owned, const Schedule& schedule);
  // For small sums: all memory is this rank's own.
  TreeReduction(Arena& arena, Communicator& communicator, const Placement& owned, const Schedule& schedule);
  ~TreeReduction() override;

  // Returns the sum of the open group. Nothing is sent before the last slot has ended, because only sums of several
  // groups go to other ranks.
  std::span<float> begin_slot() override;
  void end_slot() override;
  std::span<float> reduce_scatter() override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
