// Where tensors lie: the one description of a model's parameters by name, shape and position. Reduction, optimizer,
// weight gather and checkpoint take a Layout and a Placement (dist/zero/placement.h), and nothing else.
//
// All parameters stand behind each other in the logical order, each from a multiple of 16 elements on. The gap after a
// tensor belongs to nothing: it is zero for ever, and whoever holds the end of the tensor holds the gap.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// Elements [begin, end) of something that is counted.
struct Range {
  uint64_t begin = 0;
  uint64_t end = 0;
  constexpr uint64_t count() const { return end - begin; }
  constexpr bool empty() const { return begin >= end; }
  friend constexpr bool operator==(const Range&, const Range&) = default;
};
constexpr Range range_of(const Range& range) {
  return range;
}

// Returns what both have; {0, 0} if they do not meet.
constexpr Range intersect(Range a, Range b) {
  const Range both{std::max(a.begin, b.begin), std::min(a.end, b.end)};
  return both.empty() ? Range{} : both;
}

// Returns boundary i, 0 to `parts`, of `parts` about equally long parts of `count` things.
constexpr uint64_t part_boundary(uint64_t count, uint64_t parts, uint64_t i) {
  return count / parts * i + count % parts * i / parts;
}

// Calls body(index, part) for every entry of a list that meets `range`; `part` is what both have. range_of(entry) is
// the entry's range; the ranges are ascending and do not overlap.
template <class List, class Body>
void for_each_part(const List& ascending, Range range, const Body& body) {
  const auto first = std::partition_point(ascending.begin(), ascending.end(),
                                          [&](const auto& entry) { return range_of(entry).end <= range.begin; });
  for (auto entry = first; entry != ascending.end() && range_of(*entry).begin < range.end; ++entry) {
    const Range part = intersect(range_of(*entry), range);
    if (!part.empty()) body(static_cast<size_t>(entry - ascending.begin()), part);
  }
}

// What a tensor is used for; optimizers choose by it.
enum class TensorUse : uint8_t { embedding, head, matrix, vector, convolution };

// Rows of a matrix, or elements of a vector, that others store as a tensor of their own: "q", "k", "v"; "gate", "up".
struct TensorPart {
  std::string name;
  int64_t rows = 0;
};

struct TensorLayout {
  std::string name = {};            // unique; letters, digits, '_', '-' and '.'
  std::vector<int64_t> shape = {};  // 1 to 4 axes, row-major
  uint32_t tensor_id = 0;           // of matrix 0; matrix i has tensor_id + i. It keys random bits
  uint32_t matrices = 1;  // more than 1: a stack, of shape[0] matrices that are quantised and updated separately
  uint64_t offset = 0;    // first element in the logical order, a multiple of 16
  uint64_t count = 0;     // elements
  uint64_t grain = 4096;  // a cut lies at a multiple of it from the start of a unit, or at the unit's end
  uint32_t bucket = 0;    // index of the bucket in which it lies
  uint8_t width = 2;      // bytes of a stored weight; gradients and sums are FP32 always
  TensorUse use = TensorUse::matrix;
  bool decay = false;   // weight decay applies
  bool trained = true;  // false: it has no gradient, and no optimizer takes it
  std::vector<TensorPart> parts = {};

  // The elements of the tensor that stay together when it is owned by whole matrices: a part of one matrix, the matrix
  // if it has no parts, or a vector. Ascending; they cover the tensor. A tensor of several units has units of a
  // multiple of 16 elements.
  std::vector<Range> units() const;
};
inline Range range_of(const TensorLayout& tensor) {
  return {tensor.offset, tensor.offset + tensor.count};
}

// Tensors that are gathered and reduced as one: a block, or the experts of a block.
struct Bucket {
  std::string name;
  Range range;  // of the logical order, with the gap behind the last tensor
  bool experts = false;
};
inline Range range_of(const Bucket& bucket) {
  return bucket.range;
}

class Layout {
 public:
  static constexpr uint64_t alignment = 16;  // elements

  Layout() = default;
  // Checks (NIBBLE_CHECK) order, overlap, ids, shapes and grains. Buckets follow each other from element 0 on, and
  // each tensor lies in its bucket.
  Layout(std::vector<Bucket> buckets, std::vector<TensorLayout> tensors);

  // Returns the elements of the logical order, gaps included.
  uint64_t elements() const { return elements_; }
  const std::vector<TensorLayout>& tensors() const { return tensors_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  // Returns null if there is no such tensor.
  const TensorLayout* find(std::string_view name) const;
  // Returns elements of a tensor as a range of the logical order; the end of the tensor has the gap with it.
  Range with_gap(uint32_t tensor, Range elements) const;

  // Weights of different widths stand behind each other in the same order. Returns the byte at which the weight of
  // an element of the logical order begins, and the bytes of all weights with their gaps.
  uint64_t weight_byte(uint64_t element) const;
  uint64_t weight_bytes() const { return weight_byte(elements_); }

 private:
  std::vector<Bucket> buckets_;
  std::vector<TensorLayout> tensors_;
  uint64_t elements_ = 0;
  std::vector<uint64_t> first_byte_;  // [tensors]: of each tensor's weights
};

// Returns the layout of a single vector.
Layout one_vector(std::string name, uint64_t elements);

}  // namespace nibble
