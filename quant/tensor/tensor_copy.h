// Copies of tensors from one device to another, or within one.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "dist/device/device_memory.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// Copies the elements. Shapes may differ; dtype and number of elements must not. Waits for the device if one end is the
// CPU.
inline void copy(const Tensor& from, const Tensor& to) {
  NIBBLE_CHECK(from.dtype() == to.dtype() && from.elements() == to.elements(), "a copy keeps dtype and size");
  copy_bytes({.to = to.data(),
              .to_device = to.device(),
              .from = from.data(),
              .from_device = from.device(),
              .bytes = from.bytes()});
}

// A tensor that the CPU can read: the tensor itself where it is on the CPU, else a copy made by the constructor.
class HostCopy {
 public:
  explicit HostCopy(const Tensor& tensor) : view_(tensor) {
    if (tensor.device() == DeviceKind::cpu || tensor.empty()) return;
    memory_.resize(tensor.bytes());
    view_ = tensor.on_cpu(memory_.data());
    copy(tensor, view_);
  }
  HostCopy(HostCopy&&) = default;  // the moved-from object must not be read
  HostCopy(const HostCopy&) = delete;
  HostCopy& operator=(const HostCopy&) = delete;
  const Tensor& tensor() const { return view_; }
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(view_.data()), view_.bytes()}; }
  template <class T>
  std::span<const T> as() const {
    return {view_.as<T>(), static_cast<size_t>(view_.elements())};
  }

 private:
  std::vector<std::byte> memory_;
  Tensor view_;
};

// A tensor that the CPU writes: the tensor itself where it is on the CPU, else memory of the CPU that finish() copies
// to it.
class HostStage {
 public:
  explicit HostStage(const Tensor& tensor) : target_(tensor), view_(tensor) {
    if (tensor.device() == DeviceKind::cpu || tensor.empty()) return;
    memory_.resize(tensor.bytes());
    view_ = tensor.on_cpu(memory_.data());
  }
  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(view_.data()), view_.bytes()}; }
  template <class T>
  std::span<T> as() const {
    return {view_.as<T>(), static_cast<size_t>(view_.elements())};
  }
  void finish() const {
    if (!memory_.empty()) copy(view_, target_);
  }

 private:
  std::vector<std::byte> memory_;
  Tensor target_, view_;
};

}  // namespace nibble
