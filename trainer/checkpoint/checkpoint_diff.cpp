#include "trainer/checkpoint/checkpoint_diff.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include "quant/format/codec.h"
#include "trainer/checkpoint/checkpoint.h"

namespace nibble {

namespace {

Tensor tensor_of(void* data, DType dtype, const std::vector<int64_t>& shape) {
  switch (shape.size()) {
    case 1: return {data, dtype, {shape[0]}};
    case 2: return {data, dtype, {shape[0], shape[1]}};
    case 3: return {data, dtype, {shape[0], shape[1], shape[2]}};
    default: return {data, dtype, {shape.at(0), shape.at(1), shape.at(2), shape.at(3)}};
  }
}

// Two buffers for values of one dtype at a time.
class Pieces {
 public:
  explicit Pieces(uint64_t values) : values_(values) {}
  uint64_t values() const { return values_; }
  // Returns memory for `count` values of checkpoint 0 or 1.
  Tensor take(int which, DType dtype, uint64_t count) {
    std::vector<std::byte>& buffer = buffers_[which];
    buffer.resize(std::max<uint64_t>(count * size_of(dtype), buffer.size()));
    return {buffer.data(), dtype, {static_cast<int64_t>(count)}};
  }

 private:
  uint64_t values_;
  std::vector<std::byte> buffers_[2];
};

double number_of(BFloat16 value) {
  return to_float(value);
}
template <class T>
double number_of(T value) {
  return static_cast<double>(value);
}

template <class T>
bool same_bits(T first, T second) {
  using Bytes = std::array<std::byte, sizeof(T)>;
  return std::bit_cast<Bytes>(first) == std::bit_cast<Bytes>(second);
}

template <class T>
void add_values(const T* first, const T* second, uint64_t count, ArrayDifference& difference) {
  for (uint64_t i = 0; i < count; ++i) {
    if (same_bits(first[i], second[i])) continue;
    ++difference.different;
    const double distance = std::abs(number_of(first[i]) - number_of(second[i]));
    // A NaN stays: no comparison with it is true.
    if (std::isnan(distance) || distance > difference.largest) difference.largest = distance;
  }
}

void add_values(const Tensor& first, const Tensor& second, ArrayDifference& difference) {
  const auto count = static_cast<uint64_t>(first.elements());
  difference.values += count;
  if (std::memcmp(first.data(), second.data(), first.bytes()) == 0) return;
  const auto compare = [&]<class T>(T) { add_values(first.as<T>(), second.as<T>(), count, difference); };
  switch (first.dtype()) {
    case DType::f32: return compare(float());
    case DType::bf16: return compare(BFloat16());
    case DType::u8: return compare(uint8_t());
    case DType::i32: return compare(int32_t());
    case DType::i64: return compare(int64_t());
  }
}

class Comparison {
 public:
  Comparison(const CheckpointInfo& first, const CheckpointInfo& second, uint64_t piece)
      : first_(first), second_(second), pieces_(std::max<uint64_t>(piece, 1)) {}

  CheckpointDifference run() {
    for (const ArrayInfo& array : first_.arrays) compare_array(array, second_.find_array(array.name));
    for (const ArrayInfo& array : second_.arrays) {
      if (first_.find_array(array.name) == nullptr) add_only(array, second_, "only in the second");
    }
    for (const CheckpointInfo::Replicated& array : first_.replicated) compare_replicated(array);
    for (const CheckpointInfo::Replicated& array : second_.replicated) {
      if (first_.find_replicated(array.name) == nullptr) add(array.name, "only in the second");
    }
    compare_numbers();
    return std::move(result_);
  }

 private:
  void add(const std::string& name, const std::string& reason) {
    ++result_.compared;
    result_.differing.push_back({.name = name, .reason = reason});
  }
  void add(ArrayDifference difference) {
    ++result_.compared;
    if (difference.different > 0) result_.differing.push_back(std::move(difference));
  }
  void add_only(const ArrayInfo& array, const CheckpointInfo& checkpoint, const std::string& reason) {
    for (const TensorLayout& tensor : checkpoint.layout.tensors()) {
      if (array.covers(tensor)) add(array.name + "/" + tensor.name, reason);
    }
  }

  void compare_array(const ArrayInfo& first, const ArrayInfo* second) {
    if (second == nullptr) return add_only(first, first_, "only in the first");
    for (const TensorLayout& tensor : first_.layout.tensors()) {
      if (!first.covers(tensor)) continue;
      const TensorLayout* const other = second_.layout.find(tensor.name);
      const bool is_there = other != nullptr && second->covers(*other);
      if (!is_there) {
        add(first.name + "/" + tensor.name, "only in the first");
      } else if (const std::string reason = mismatch(first, tensor, *second, *other); !reason.empty()) {
        add(first.name + "/" + tensor.name, reason);
      } else {
        compare_tensor(first, tensor, *second, *other);
      }
    }
    for (const TensorLayout& tensor : second_.layout.tensors()) {
      if (!second->covers(tensor)) continue;
      const TensorLayout* const other = first_.layout.find(tensor.name);
      if (other == nullptr || !first.covers(*other)) add(first.name + "/" + tensor.name, "only in the second");
    }
  }

  static std::string mismatch(const ArrayInfo& first, const TensorLayout& a, const ArrayInfo& second,
                              const TensorLayout& b) {
    return mismatch(first.dtype_of(a), first.shape_of(a), second.dtype_of(b), second.shape_of(b));
  }
  static std::string mismatch(DType a, const std::vector<int64_t>& shape, DType b, const std::vector<int64_t>& other) {
    if (a == b && shape == other) return {};
    return fmt::format("{} [{}], then {} [{}]", name_of(a), fmt::join(shape, ", "), name_of(b), fmt::join(other, ", "));
  }

  // Reads elements of a tensor.
  Tensor read(int which, const ArrayInfo& array, const TensorLayout& tensor, Range elements) {
    const CheckpointInfo& checkpoint = which == 0 ? first_ : second_;
    const auto index = static_cast<uint32_t>(&tensor - checkpoint.layout.tensors().data());
    const DType dtype = array.dtype_of(tensor);
    const Tensor values = pieces_.take(which, dtype, array.values_of(elements).count());
    load_elements(checkpoint, array, index, elements, {static_cast<std::byte*>(values.data()), values.bytes()});
    return values;
  }

  void compare_tensor(const ArrayInfo& first, const TensorLayout& tensor, const ArrayInfo& second,
                      const TensorLayout& other) {
    ArrayDifference difference{.name = first.name + "/" + tensor.name, .reason = {}};
    const uint64_t step = pieces_.values() * first.elements_a_value;
    for (uint64_t begin = 0; begin < tensor.count; begin += step) {
      const Range elements{begin, std::min(begin + step, tensor.count)};
      add_values(read(0, first, tensor, elements), read(1, second, other, elements), difference);
    }
    add(std::move(difference));
  }

  void compare_replicated(const CheckpointInfo::Replicated& array) {
    const CheckpointInfo::Replicated* const other = second_.find_replicated(array.name);
    if (other == nullptr) return add(array.name, "only in the first");
    if (const std::string reason = mismatch(array.dtype, array.shape, other->dtype, other->shape); !reason.empty()) {
      return add(array.name, reason);
    }
    uint64_t count = 1;
    for (const int64_t extent : array.shape) count *= static_cast<uint64_t>(extent);
    ArrayDifference difference{.name = array.name, .reason = {}};
    const auto load = [&](int which, const CheckpointInfo& checkpoint) {
      const Tensor values = tensor_of(pieces_.take(which, array.dtype, count).data(), array.dtype, array.shape);
      load_replicated(checkpoint, array.name, values);
      return values;
    };
    add_values(load(0, first_), load(1, second_), difference);
    add(std::move(difference));
  }

  void compare_numbers() {
    std::map<std::string, std::pair<std::optional<uint64_t>, std::optional<uint64_t>>> numbers;
    for (const NamedNumber& number : first_.numbers) numbers[number.name].first = number.value;
    for (const NamedNumber& number : second_.numbers) numbers[number.name].second = number.value;
    for (const auto& [name, values] : numbers) {
      if (name.starts_with("best/")) continue;
      if (!values.second) {
        add(name, "only in the first");
      } else if (!values.first) {
        add(name, "only in the second");
      } else {
        const auto [low, high] = std::minmax(*values.first, *values.second);
        add({.name = name,
             .reason = {},
             .values = 1,
             .different = low == high ? uint64_t{0} : uint64_t{1},
             .largest = static_cast<double>(high - low)});
      }
    }
  }

  const CheckpointInfo& first_;
  const CheckpointInfo& second_;
  Pieces pieces_;
  CheckpointDifference result_;
};

}  // namespace

CheckpointDifference compare_checkpoints(const CheckpointInfo& first, const CheckpointInfo& second, uint64_t piece) {
  return Comparison(first, second, piece).run();
}

}  // namespace nibble
