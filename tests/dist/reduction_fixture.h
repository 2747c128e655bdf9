// Gradients of micro-batches, and what their sum is by definition.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>

#include "dist/zero/gradient_reduction.h"
#include "dist/zero/schedule.h"
#include "mpi_environment.h"
#include "owned_vector.h"

namespace nibble {

// Values have very different sizes, so that any other order of additions gives other bits.
inline float gradient(uint64_t micro_batch, uint64_t element, uint64_t repetition) {
  uint64_t mixed = (micro_batch * 0x9E3779B97F4A7C15u) ^ (element * 0xC2B2AE3D27D4EB4Fu) ^ (repetition << 40);
  mixed = (mixed ^ (mixed >> 31)) * 0xD6E8FEB86659FD93u;
  mixed ^= mixed >> 32;
  const float fraction = static_cast<float>(mixed & 0xFFFFFFu) / 16777216.0f - 0.5f;
  return std::ldexp(fraction, static_cast<int>((mixed >> 24) & 15u));
}

// The definition of dist/zero/tree_reduction.h, computed recursively.
inline float tree_node(const MicroBatchGroups& groups, uint64_t first, uint64_t length, uint64_t element,
                       uint64_t repetition) {
  if (length == 1) {
    float leaf = 0;
    for (uint64_t m = groups.first(first); m < groups.first(first + 1); ++m) leaf += gradient(m, element, repetition);
    return leaf;
  }
  const uint64_t half = length / 2;
  const float left = tree_node(groups, first, half, element, repetition);
  if (first + half >= groups.count()) return left;
  return left + tree_node(groups, first + half, half, element, repetition);
}

// Runs two steps, one immediately after the other, so that a rank that still reads the first must find its data
// unchanged.
inline void check_steps(GradientReduction& reduction, const Schedule& schedule, const OwnedVector& partition) {
  const uint64_t begin = partition.begin(communicator().rank());
  const MicroBatchGroups& groups = schedule.groups();
  for (uint64_t repetition = 0; repetition < 2; ++repetition) {
    for (uint64_t slot = 0; slot < schedule.slots(); ++slot) {
      const std::span<float> sum = reduction.begin_slot();
      const std::optional<uint64_t> micro_batch = schedule.micro_batch(slot, communicator().rank());
      ASSERT_EQ(sum.size(), micro_batch ? partition.elements() : 0);
      const bool zero =
          micro_batch && (schedule.order() == Schedule::Order::stripes || groups.begins_group(*micro_batch));
      for (uint64_t i = 0; i < sum.size(); ++i) {
        ASSERT_TRUE(!zero || sum[i] == 0.0f);
        sum[i] += gradient(*micro_batch, i, repetition);
      }
      reduction.end_slot();
    }
    const std::span<const float> shard = reduction.reduce_scatter();
    ASSERT_EQ(shard.size(), partition.count(communicator().rank()));
    for (uint64_t i = 0; i < shard.size(); ++i) {
      const float expected = tree_node(groups, 0, std::bit_ceil(groups.count()), begin + i, repetition);
      ASSERT_EQ(std::bit_cast<uint32_t>(shard[i]), std::bit_cast<uint32_t>(expected))
          << groups.micro_batches() << " micro-batches in " << groups.count() << " groups, element " << begin + i;
    }
  }
}

}  // namespace nibble
