#include "trainer/checkpoint/stored_parts.h"

#include <algorithm>
#include <utility>

namespace nibble {

std::vector<std::vector<StoredPart>> stored_parts(const Placement& files) {
  const std::vector<TensorLayout>& tensors = files.layout().tensors();
  std::vector<std::vector<StoredPart>> parts(tensors.size());
  for (int file = 0; file < files.ranks(); ++file) {
    const std::span<const Slice> slices = files.slices(file);
    for (size_t first = 0; first < slices.size();) {
      const uint32_t tensor = slices[first].tensor;
      size_t end = first;
      while (end < slices.size() && slices[end].tensor == tensor) ++end;
      for (size_t i = first; i < end; ++i) {
        std::string name = tensors[tensor].name;
        if (end - first > 1) name += "." + std::to_string(i - first);
        parts[tensor].push_back({file, slices[i].elements, std::move(name)});
      }
      first = end;
    }
  }
  for (std::vector<StoredPart>& of_tensor : parts) {
    std::ranges::sort(of_tensor, {}, [](const StoredPart& part) { return part.elements.begin; });
  }
  return parts;
}

Placement placement_of_files(const CheckpointInfo& checkpoint) {
  const std::vector<TensorLayout>& tensors = checkpoint.layout.tensors();
  std::vector<Share> shares;
  for (size_t file = 0; file < checkpoint.rank_files.size(); ++file) {
    for (const Range& range : checkpoint.rank_files[file].ranges) {
      for_each_part(tensors, range, [&](size_t tensor, Range part) {
        const uint64_t offset = tensors[tensor].offset;
        shares.push_back({static_cast<uint32_t>(tensor),
                          {part.begin - offset, part.end - offset},
                          {.first = static_cast<int>(file)}});
      });
    }
  }
  return {checkpoint.layout, static_cast<int>(checkpoint.rank_files.size()), std::move(shares),
          Placement::Cuts::anywhere};
}

TensorSlice slice_of(const ArrayInfo& array, const TensorLayout& tensor, const StoredPart& part) {
  const Range values = array.values_of(part.elements);
  return {array.name, part.name, array.dtype_of(tensor), array.shape_of(tensor), values.begin, values.count()};
}

}  // namespace nibble
