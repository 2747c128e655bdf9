#include "trainer/checkpoint/optimizer_arrays.h"

#include <string>

namespace nibble {
namespace {

// Returns the ids of the tensors that have values, in ranges; none if all have.
std::vector<Range> tensors_of(const StateArray& array, const Optimizer& optimizer, const OptimizerList& optimizers,
                              const Layout& layout) {
  std::vector<Range> ranges;
  bool all = true;
  for (const TensorLayout& tensor : layout.tensors()) {
    const bool has = optimizers.taker_of(tensor) == &optimizer && (array.of == nullptr || array.of(tensor));
    all = all && has;
    if (!has) continue;
    const Range ids{tensor.tensor_id, uint64_t{tensor.tensor_id} + tensor.matrices};
    if (!ranges.empty() && ranges.back().end == ids.begin) {
      ranges.back().end = ids.end;
    } else {
      ranges.push_back(ids);
    }
  }
  return all ? std::vector<Range>() : ranges;
}

}  // namespace

std::vector<CheckpointArray> optimizer_arrays(const OptimizerList& optimizers, const Layout& layout) {
  std::vector<CheckpointArray> result;
  for (const std::unique_ptr<Optimizer>& optimizer : optimizers.optimizers()) {
    for (const StateArray& state : optimizer->state()) {
      CheckpointArray array{{.name = std::string(optimizer_prefix) + state.name,
                             .dtype = state.values.dtype(),
                             .elements_a_value = state.elements_a_value,
                             .tensors = tensors_of(state, *optimizer, optimizers, layout)},
                            state.values,
                            {}};
      for (const OwnedSlice& slice : state.slices) {
        array.slices.push_back({slice.tensor, slice.elements, slice.state_at / state.elements_a_value});
      }
      result.push_back(std::move(array));
    }
  }
  return result;
}

std::vector<OptimizerInfo> optimizer_infos(const OptimizerList& optimizers) {
  std::vector<OptimizerInfo> result;
  for (const std::unique_ptr<Optimizer>& optimizer : optimizers.optimizers()) {
    OptimizerInfo& info = result.emplace_back(OptimizerInfo{.name = std::string(optimizer->name())});
    for (const StateArray& array : optimizer->state()) info.state.push_back(array.name);
  }
  return result;
}

}  // namespace nibble
