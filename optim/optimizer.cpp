#include "optim/optimizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "dist/base/error.h"

namespace nibble {

std::vector<OwnedSlice> owned_slices(const Placement& owned, int rank, const std::vector<bool>& taken) {
  const Layout& layout = owned.layout();
  std::vector<OwnedSlice> result;
  uint64_t state_at = 0;
  for (const Slice& slice : owned.slices(rank)) {
    if (!taken[slice.tensor]) continue;
    const Range logical = layout.with_gap(slice.tensor, slice.elements);
    result.push_back({.tensor = slice.tensor,
                      .elements = slice.elements,
                      .gradient_at = slice.at,
                      .weight_byte = layout.weight_byte(logical.begin),
                      .state_at = state_at});
    state_at += logical.count();
  }
  return result;
}

uint64_t state_elements(const Layout& layout, std::span<const OwnedSlice> slices) {
  if (slices.empty()) return 0;
  const OwnedSlice& last = slices.back();
  return last.state_at + layout.with_gap(last.tensor, last.elements).count();
}

OptimizerList::OptimizerList(std::vector<std::unique_ptr<Optimizer>> optimizers, const Placement& owned, int rank)
    : optimizers_(std::move(optimizers)), owned_(owned) {
  const std::vector<TensorLayout>& tensors = owned.layout().tensors();
  std::vector<std::vector<bool>> taken(optimizers_.size(), std::vector<bool>(tensors.size()));
  for (size_t tensor = 0; tensor < tensors.size(); ++tensor) {
    if (!tensors[tensor].trained) continue;
    const auto taker = std::ranges::find(optimizers_, taker_of(tensors[tensor]), &std::unique_ptr<Optimizer>::get);
    if (taker == optimizers_.end()) {
      throw Error(ExitCode::bad_config, fmt::format("no optimizer takes the tensor {}", tensors[tensor].name),
                  "let one of the run's optimizers take every tensor");
    }
    taken[static_cast<size_t>(taker - optimizers_.begin())][tensor] = true;
  }
  for (const std::vector<bool>& of_optimizer : taken) slices_.push_back(owned_slices(owned, rank, of_optimizer));
}

const Optimizer* OptimizerList::taker_of(const TensorLayout& tensor) const {
  const auto taker = std::ranges::find_if(
      optimizers_, [&](const std::unique_ptr<Optimizer>& optimizer) { return optimizer->takes(tensor); });
  return !tensor.trained || taker == optimizers_.end() ? nullptr : taker->get();
}

void OptimizerList::allocate(Arena& arena) {
  for (size_t i = 0; i < optimizers_.size(); ++i) optimizers_[i]->allocate(arena, owned_.layout(), slices_[i]);
}

void OptimizerList::set_weights(std::span<const float> values, const Tensor& weights) {
  for (const std::unique_ptr<Optimizer>& optimizer : optimizers_) optimizer->set_weights(values, weights);
}

void OptimizerList::read_weights(std::span<float> values, const Tensor& weights) const {
  std::ranges::fill(values, 0.0F);
  for (const std::unique_ptr<Optimizer>& optimizer : optimizers_) optimizer->read_weights(values, weights);
}

void OptimizerList::update(const UpdateStep& step, const Shard& shard) {
  update(step, shard, {0, static_cast<uint64_t>(shard.gradient.elements())});
}

void OptimizerList::update(const UpdateStep& step, const Shard& shard, Range gradient) {
  for (const std::unique_ptr<Optimizer>& optimizer : optimizers_) optimizer->update(step, shard, gradient);
}

}  // namespace nibble
