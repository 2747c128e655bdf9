#include "optim/gradient_norm.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/vectorize.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "dist/zero/reduction_tree.h"
#include "dist/zero/tree_reduction.h"

namespace nibble {
namespace {

constexpr size_t blocks_at_once = 8;

// Squares of floats do not overflow a double.
NIBBLE_VECTORIZE double sum_of_squares(const float* values, size_t count) {
  constexpr size_t lanes = 16;
  double lane[lanes] = {};
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (size_t j = 0; j < lanes; ++j) {
      const double value = values[i + j];
      lane[j] += value * value;
    }
  }
  for (size_t j = 0; i < count; ++i, ++j) {
    const double value = values[i];
    lane[j] += value * value;
  }
  for (size_t width = lanes / 2; width > 0; width /= 2) {
    for (size_t j = 0; j < width; ++j) lane[j] += lane[j + width];
  }
  return lane[0];
}

}  // namespace

namespace cpu {

static void sum_squares(const SquareSums& problem) {
  const float* const values = problem.shard.as<float>();
  parallel_for(problem.sums.size(), blocks_at_once, [&](size_t begin, size_t end) {
    for (size_t block = begin; block < end; ++block) {
      const Range range = problem.blocks[block];
      problem.sums[block] = sum_of_squares(values + range.begin, range.count());
    }
  });
}

}  // namespace cpu

namespace {

// Returns the blocks of a slice, which are whole, as ranges of its tensor's elements.
std::vector<Range> blocks_in(const TensorLayout& tensor, Range elements) {
  std::vector<Range> blocks;
  for (const Range& unit : tensor.units()) {
    const Range part = intersect(unit, elements);
    NIBBLE_CHECK((part.begin - unit.begin) % norm_block == 0 || part.empty(), "a slice begins with a block");
    for (uint64_t first = part.begin; first < part.end; first += norm_block) {
      blocks.push_back({first, std::min(part.end, first + norm_block)});
    }
  }
  return blocks;
}

// Returns the number of blocks of a tensor that lie before an element.
uint64_t blocks_before(const TensorLayout& tensor, uint64_t element) {
  uint64_t blocks = 0;
  for (const Range& unit : tensor.units()) blocks += div_ceil(intersect(unit, {0, element}).count(), norm_block);
  return blocks;
}

// A node of the tree of a tensor's blocks that a rank has; `value` is the node's number in the list of all ranks.
struct PartialSum {
  uint32_t tensor = 0;
  TreeNode node;
};

// Returns the nodes of the slices of a rank, in the order of its blocks; numbers begin with `first_number`.
std::vector<PartialSum> nodes_of(const Placement& owned, int rank, size_t first_number) {
  std::vector<PartialSum> result;
  for (const Slice& slice : owned.slices(rank)) {
    const TensorLayout& tensor = owned.layout().tensors()[slice.tensor];
    const uint64_t end = blocks_before(tensor, slice.elements.end);
    for (uint64_t block = blocks_before(tensor, slice.elements.begin); block < end;) {
      const TreeNode node = largest_node(block, end, first_number + result.size());
      result.push_back({slice.tensor, node});
      block += node.length;
    }
  }
  return result;
}

std::vector<double> sums_of_blocks(const Placement& owned, int rank, const Tensor& shard) {
  std::vector<Range> blocks;
  for (const Slice& slice : owned.slices(rank)) {
    for (const Range& block : blocks_in(owned.layout().tensors()[slice.tensor], slice.elements)) {
      const uint64_t at = slice.at + (block.begin - slice.elements.begin);
      blocks.push_back({at, at + block.count()});
    }
  }
  std::vector<double> sums(blocks.size());
  const SquareSums problem{shard, blocks, sums};
  NIBBLE_DISPATCH(shard.device(), sum_squares, problem);
  return sums;
}

}  // namespace

GradientNorm gradient_norm(Communicator& communicator, const Placement& owned, const Tensor& shard) {
  const ProfileScope scope(OperatorFamily::optimizer, "gradient_norm");
  const int rank = communicator.rank();
  NIBBLE_CHECK(owned.ranks() == communicator.size() && static_cast<uint64_t>(shard.elements()) == owned.elements(rank),
               "gradient shard");
  const std::vector<double> own = sums_of_blocks(owned, rank, shard);
  std::vector<PartialSum> partial;   // of all ranks
  std::vector<double> sums;          // [partial]
  std::vector<uint64_t> offsets{0};  // where each rank's sums begin, in bytes
  for (int other = 0; other < communicator.size(); ++other) {
    const std::vector<PartialSum> nodes = nodes_of(owned, other, sums.size());
    partial.insert(partial.end(), nodes.begin(), nodes.end());
    if (other == rank) {
      std::span<const double> blocks = own;
      for (const PartialSum& sum : nodes) {
        sums.push_back(tree_sum(blocks.first(sum.node.length)));
        blocks = blocks.subspan(sum.node.length);
      }
    }
    sums.resize(partial.size());
    offsets.push_back(sums.size() * sizeof(double));
  }
  communicator.host().all_gather(std::as_writable_bytes(std::span(sums)), offsets);

  std::ranges::sort(partial, {}, [](const PartialSum& sum) { return std::pair(sum.tensor, sum.node.first); });
  std::vector<double> of_tensors;
  const std::vector<TensorLayout>& tensors = owned.layout().tensors();
  for (auto sum = partial.begin(); sum != partial.end();) {
    const uint32_t tensor = sum->tensor;
    NodeStack stack(blocks_before(tensors[tensor], tensors[tensor].count));
    for (; sum != partial.end() && sum->tensor == tensor; ++sum) {
      stack.push(sum->node, [&](size_t left, size_t right) { sums[left] += sums[right]; });
    }
    NIBBLE_CHECK(stack.nodes().size() == 1, "all blocks of a tensor are owned once");
    of_tensors.push_back(sums[stack.nodes().front().value]);
  }
  const double total = tree_sum(of_tensors);
  return {std::sqrt(total), std::isfinite(total)};
}

float clip_scale(double norm, double max_norm) {
  if (max_norm <= 0 || norm <= max_norm) return 1;
  return static_cast<float>(max_norm / norm);
}

}  // namespace nibble
