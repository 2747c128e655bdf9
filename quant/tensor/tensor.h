// A view of a dense row-major array: device, dtype, shape, pointer. It owns nothing; memory comes from an Arena (or, in
// tests, from anywhere). Copying a Tensor copies the view.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>

#include "dist/base/error.h"
#include "dist/device/arena.h"
#include "dist/device/device_kind.h"
#include "quant/format/dtype.h"

namespace nibble {

class Tensor {
 public:
  static constexpr int max_rank = 4;

  Tensor() = default;
  Tensor(void* data, DType dtype, std::initializer_list<int64_t> shape, DeviceKind device = DeviceKind::cpu)
      : data_(static_cast<std::byte*>(data)), dtype_(dtype), device_(device), rank_(static_cast<int>(shape.size())) {
    NIBBLE_CHECK(shape.size() <= max_rank, "tensor rank");
    int axis = 0;
    for (int64_t extent : shape) shape_[static_cast<size_t>(axis++)] = extent;
  }

  template <class T>
  T* as() const {
    NIBBLE_CHECK(DTypeOf<T>::value == dtype_, "tensor holds another dtype");
    return reinterpret_cast<T*>(data_);
  }
  void* data() const { return data_; }
  DType dtype() const { return dtype_; }
  DeviceKind device() const { return device_; }
  int rank() const { return rank_; }
  int64_t size(int axis) const { return shape_[static_cast<size_t>(axis)]; }
  bool empty() const { return rank_ == 0; }  // a default-constructed Tensor: "not given"

  int64_t elements() const {
    int64_t count = rank_ == 0 ? 0 : 1;
    for (int axis = 0; axis < rank_; ++axis) count *= size(axis);
    return count;
  }
  size_t bytes() const { return static_cast<size_t>(elements()) * size_of(dtype_); }
  // The extents of the tensor read as a matrix [rows, cols]: cols is the last axis.
  int64_t cols() const { return size(rank_ - 1); }
  int64_t rows() const { return elements() / cols(); }

  Tensor reshape(std::initializer_list<int64_t> shape) const {
    Tensor view(data_, dtype_, shape, device_);
    NIBBLE_CHECK(view.elements() == elements(), "reshape changes the number of elements");
    return view;
  }
  // Returns a view of the same shape over memory of the CPU.
  Tensor on_cpu(void* memory) const {
    Tensor view = *this;
    view.data_ = static_cast<std::byte*>(memory);
    view.device_ = DeviceKind::cpu;
    return view;
  }
  // Returns a view of rows [begin, end) along the first axis.
  Tensor slice(int64_t begin, int64_t end) const {
    NIBBLE_CHECK(0 <= begin && begin <= end && end <= size(0), "slice out of range");
    Tensor view = *this;
    const int64_t stride = size(0) == 0 ? 0 : elements() / size(0);
    view.shape_[0] = end - begin;
    if (data_ != nullptr) view.data_ = data_ + static_cast<size_t>(begin * stride) * size_of(dtype_);
    return view;
  }

 private:
  std::byte* data_ = nullptr;
  DType dtype_ = DType::f32;
  DeviceKind device_ = DeviceKind::cpu;
  int rank_ = 0;
  std::array<int64_t, max_rank> shape_{};
};

// Takes a tensor from the arena (a view of null while the arena is measuring).
inline Tensor allocate_tensor(Arena& arena, DType dtype, std::initializer_list<int64_t> shape) {
  const Tensor view(nullptr, dtype, shape, arena.device());
  return Tensor(arena.allocate(view.bytes()), dtype, shape, arena.device());
}

// Returns a view of existing memory with this shape, whose element count must be the span's.
template <class T>
Tensor tensor_of(std::span<T> values, std::initializer_list<int64_t> shape) {
  Tensor view(values.data(), DTypeOf<std::remove_const_t<T>>::value, shape);
  NIBBLE_CHECK(view.elements() == static_cast<int64_t>(values.size()), "shape does not match the span");
  return view;
}

}  // namespace nibble
