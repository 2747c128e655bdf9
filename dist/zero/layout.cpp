#include "dist/zero/layout.h"

#include <numeric>
#include <set>

#include "dist/base/error.h"

namespace nibble {
namespace {

uint64_t product(std::span<const int64_t> extents) {
  return std::accumulate(extents.begin(), extents.end(), uint64_t{1}, [](uint64_t count, int64_t extent) {
    return checked_multiply(count, narrow<uint64_t>(extent));
  });
}

void check(const TensorLayout& tensor) {
  NIBBLE_CHECK(!tensor.shape.empty() && tensor.shape.size() <= 4, "a tensor has 1 to 4 axes: " + tensor.name);
  NIBBLE_CHECK(tensor.count == product(tensor.shape) && tensor.count > 0, "elements of " + tensor.name);
  NIBBLE_CHECK(tensor.offset % Layout::alignment == 0, "offset of " + tensor.name);
  NIBBLE_CHECK(tensor.grain > 0 && tensor.grain % Layout::alignment == 0, "grain of " + tensor.name);
  NIBBLE_CHECK(tensor.width == 2 || tensor.width == 4, "width of " + tensor.name);
  NIBBLE_CHECK(tensor.matrices == 1 || (tensor.shape.size() == 3 && tensor.shape[0] == tensor.matrices),
               "a stack is [matrices, rows, columns]: " + tensor.name);
  const std::vector<Range> units = tensor.units();
  NIBBLE_CHECK(units.back().end == tensor.count, "the parts are all rows of " + tensor.name);
  if (tensor.shape.size() == 1 && !tensor.parts.empty()) {
    const int64_t rows = std::accumulate(tensor.parts.begin(), tensor.parts.end(), int64_t{0},
                                         [](int64_t sum, const TensorPart& part) { return sum + part.rows; });
    NIBBLE_CHECK(rows == tensor.shape[0], "the parts are all elements of " + tensor.name);
  }
  for (const Range& unit : units) {
    NIBBLE_CHECK(unit.begin % Layout::alignment == 0 && !unit.empty(), "units of " + tensor.name);
  }
}

}  // namespace

std::vector<Range> TensorLayout::units() const {
  const uint64_t matrix = count / matrices;
  if (shape.size() == 1 || (parts.empty() && matrices == 1)) return {{0, count}};
  std::vector<Range> result;
  const uint64_t columns = parts.empty() ? 0 : narrow<uint64_t>(shape.back());
  for (uint64_t first = 0; first < count; first += matrix) {
    if (parts.empty()) result.push_back({first, first + matrix});
    uint64_t begin = first;
    for (const TensorPart& part : parts) {
      const uint64_t end = begin + checked_multiply(narrow<uint64_t>(part.rows), columns);
      result.push_back({begin, end});
      begin = end;
    }
  }
  return result;
}

Layout::Layout(std::vector<Bucket> buckets, std::vector<TensorLayout> tensors)
    : buckets_(std::move(buckets)), tensors_(std::move(tensors)) {
  for (const Bucket& bucket : buckets_) {
    NIBBLE_CHECK(bucket.range.begin == elements_ && bucket.range.end % alignment == 0 && !bucket.range.empty(),
                 "buckets follow each other: " + bucket.name);
    elements_ = bucket.range.end;
  }
  std::set<std::string_view> names;
  uint64_t next = 0;
  uint64_t next_id = 0;
  uint64_t byte = 0;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const TensorLayout& tensor = tensors_[i];
    check(tensor);
    NIBBLE_CHECK(names.insert(tensor.name).second, "two tensors are called " + tensor.name);
    NIBBLE_CHECK(tensor.offset >= next && tensor.tensor_id >= next_id, "tensors in ascending order: " + tensor.name);
    NIBBLE_CHECK(tensor.bucket < buckets_.size() &&
                     intersect(buckets_[tensor.bucket].range, range_of(tensor)) == range_of(tensor),
                 "a tensor lies in its bucket: " + tensor.name);
    NIBBLE_CHECK(i > 0 || tensor.offset == 0, "the first tensor begins at element 0");
    next = tensor.offset + tensor.count;
    next_id = uint64_t{tensor.tensor_id} + tensor.matrices;
    first_byte_.push_back(byte);
    const uint64_t end = i + 1 < tensors_.size() ? tensors_[i + 1].offset : elements_;
    NIBBLE_CHECK(end >= next, "a tensor ends before the next: " + tensor.name);
    byte += checked_multiply(end - tensor.offset, uint64_t{tensor.width});
  }
  NIBBLE_CHECK(!tensors_.empty() || elements_ == 0, "elements of no tensor");
}

Layout one_vector(std::string name, uint64_t elements) {
  TensorLayout vector{.name = std::move(name), .shape = {narrow<int64_t>(elements)}, .count = elements};
  vector.use = TensorUse::vector;
  return {{{.name = vector.name, .range = {0, round_up(elements, Layout::alignment)}}}, {vector}};
}

const TensorLayout* Layout::find(std::string_view name) const {
  const auto found = std::ranges::find(tensors_, name, &TensorLayout::name);
  return found == tensors_.end() ? nullptr : &*found;
}

Range Layout::with_gap(uint32_t tensor, Range elements) const {
  const TensorLayout& layout = tensors_.at(tensor);
  const uint64_t after = tensor + 1 < tensors_.size() ? tensors_[tensor + 1].offset : elements_;
  return {layout.offset + elements.begin, elements.end == layout.count ? after : layout.offset + elements.end};
}

uint64_t Layout::weight_byte(uint64_t element) const {
  NIBBLE_CHECK(element <= elements_, "element of the logical order");
  const auto after = std::ranges::upper_bound(tensors_, element, {}, &TensorLayout::offset);
  if (after == tensors_.begin()) return 0;
  const auto index = static_cast<size_t>(after - tensors_.begin()) - 1;
  return first_byte_[index] + (element - tensors_[index].offset) * tensors_[index].width;
}

}  // namespace nibble
