#include "model/ops/elementwise.h"

#include "dist/device/device_memory.h"
#include "dist/device/launch.cuh"
#include "model/ops/row/storage.h"
#include "quant/format/packs.cuh"

namespace nibble::cuda {
namespace {

template <class T>
struct Sum {
  const T* a;
  const T* b;
  T* output;
  int64_t count;
};

// A thread adds 16 bytes of elements; the last elements are added one by one.
template <class T, int width>
__global__ void add_kernel(Sum<T> sum) {
  const int64_t first = global_thread() * width;
  if (first + width <= sum.count) {
    const auto a = load_floats<width>(sum.a + first);
    const auto b = load_floats<width>(sum.b + first);
    Pack<float, width> result;
#pragma unroll
    for (int i = 0; i < width; ++i) result.value[i] = a.value[i] + b.value[i];
    store_floats(sum.output + first, result);
  } else {
    for (int64_t i = first; i < sum.count; ++i) store(sum.output[i], to_float(sum.a[i]) + to_float(sum.b[i]));
  }
}

}  // namespace

void add(const Tensor& a, const Tensor& b, const Tensor& output) {
  check_vector(a, output.dtype(), output.elements());
  check_vector(b, output.dtype(), output.elements());
  with_storage_type(output.dtype(), [&]<class T>(T) {
    const Sum<T> sum{a.as<T>(), b.as<T>(), output.as<T>(), output.elements()};
    with_pack<widest_pack<T>>(in_packs(widest_pack<T>, sizeof(T), 0, {sum.a, sum.b, sum.output}), [&](auto width) {
      launch("add", add_kernel<T, width()>, one_thread_each(div_ceil<int64_t>(sum.count, width())), sum);
    });
  });
}

void fill_zero(const Tensor& tensor) {
  zero_bytes(tensor.data(), tensor.bytes());
}

}  // namespace nibble::cuda
