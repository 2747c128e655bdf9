// How the values of arrays lie in rank files: a dataset for every array and every part of a tensor that a file has.
#pragma once

#include <string>
#include <vector>

#include "dist/zero/placement.h"
#include "trainer/checkpoint/checkpoint_content.h"
#include "trainer/checkpoint/hdf5_file.h"

namespace nibble {

// Elements of a tensor in a rank file. A dataset of every array that covers the tensor has their values.
struct StoredPart {
  int file = 0;
  Range elements = {};
  std::string name = {};  // of the dataset: the tensor's, or "NAME.0", "NAME.1", ... if the file has several parts
};
inline Range range_of(const StoredPart& part) {
  return part.elements;
}
// Returns the parts of each tensor, ascending, where rank r has written file r.
std::vector<std::vector<StoredPart>> stored_parts(const Placement& files);
// Returns who has written what; the layout of `checkpoint` must outlive it.
Placement placement_of_files(const CheckpointInfo& checkpoint);
// Returns the dataset of a part.
TensorSlice slice_of(const ArrayInfo& array, const TensorLayout& tensor, const StoredPart& part);

}  // namespace nibble
