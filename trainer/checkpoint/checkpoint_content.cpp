#include "trainer/checkpoint/checkpoint_content.h"

#include <algorithm>
#include <utility>

#include "dist/base/error.h"

namespace nibble {

bool ArrayInfo::covers(const TensorLayout& tensor) const {
  return tensors.empty() || std::ranges::any_of(tensors, [&](const Range& ids) {
           return ids.begin <= tensor.tensor_id && tensor.tensor_id < ids.end;
         });
}

DType ArrayInfo::dtype_of(const TensorLayout& tensor) const {
  if (name != weights_array_name) return dtype;
  return tensor.width == size_of(DType::f32) ? DType::f32 : DType::bf16;
}

Range ArrayInfo::values_of(Range elements) const {
  return {elements.begin / elements_a_value, div_ceil(elements.end, elements_a_value)};
}

std::vector<int64_t> ArrayInfo::shape_of(const TensorLayout& tensor) const {
  if (elements_a_value == 1) return tensor.shape;
  return {narrow<int64_t>(values_of({0, tensor.count}).count())};
}

Tensor CheckpointArray::bytes_of(const Layout& layout, const Slice& slice) const {
  const uint64_t bytes = values_of(slice.elements).count() * size_of(dtype_of(layout.tensors()[slice.tensor]));
  const uint64_t begin = slice.at * size_of(values.dtype());
  NIBBLE_CHECK(begin + bytes <= values.bytes(), "a slice lies beyond the values of " + name);
  return {static_cast<std::byte*>(values.data()) + begin, DType::u8, {narrow<int64_t>(bytes)}, values.device()};
}

CheckpointArray shard_array(std::string name, const Tensor& shard, const Placement& owned, int rank) {
  const std::span<const Slice> slices = owned.slices(rank);
  NIBBLE_CHECK(static_cast<uint64_t>(shard.elements()) == owned.elements(rank), "not this rank's shard: " + name);
  return {{.name = std::move(name), .dtype = shard.dtype()}, shard, {slices.begin(), slices.end()}};
}

CheckpointArray weights_array(const Tensor& weights, const Placement& owned, int rank) {
  const Layout& layout = owned.layout();
  const bool several_widths = weights.dtype() == DType::u8;
  CheckpointArray array{{.name = std::string(weights_array_name)}, weights, {}};
  array.dtype = several_widths ? DType::bf16 : weights.dtype();
  for (Slice slice : owned.slices(rank)) {
    const uint64_t element = layout.tensors()[slice.tensor].offset + slice.elements.begin;
    slice.at = several_widths ? layout.weight_byte(element) : element;
    array.slices.push_back(slice);
  }
  return array;
}

CheckpointArray weights_array(const Tensor& weights, const Layout& layout) {
  return weights_array(weights, replicated(layout, 1), 0);
}

namespace {

template <class Named>
const Named* find_named(const std::vector<Named>& list, std::string_view name) {
  const auto found = std::ranges::find(list, name, &Named::name);
  return found == list.end() ? nullptr : &*found;
}

}  // namespace

uint64_t CheckpointInfo::number(std::string_view name) const {
  const NamedNumber* const found = find_named(numbers, name);
  return found == nullptr ? 0 : found->value;
}

const ArrayInfo* CheckpointInfo::find_array(std::string_view name) const {
  return find_named(arrays, name);
}

const CheckpointInfo::Replicated* CheckpointInfo::find_replicated(std::string_view name) const {
  return find_named(replicated, name);
}

}  // namespace nibble
