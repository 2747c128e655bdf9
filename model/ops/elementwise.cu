#include "model/ops/elementwise.h"

#include "dist/device_memory.h"
#include "dist/launch.cuh"
#include "model/ops/storage.h"

namespace nibble::cuda {
namespace {

template <class T>
struct Sum {
  const T* a;
  const T* b;
  T* output;
  int64_t count;
};

template <class T>
__global__ void add_kernel(Sum<T> sum) {
  const int64_t i = global_thread();
  if (i < sum.count) store(sum.output[i], to_float(sum.a[i]) + to_float(sum.b[i]));
}

}  // namespace

void add(const Tensor& a, const Tensor& b, const Tensor& output) {
  with_storage_type(output.dtype(), [&]<class T>(T) {
    const Sum<T> sum{a.as<T>(), b.as<T>(), output.as<T>(), output.elements()};
    launch("add", add_kernel<T>, one_thread_each(sum.count), sum);
  });
}

void fill_zero(const Tensor& tensor) {
  zero_bytes(tensor.data(), tensor.bytes());
}

}  // namespace nibble::cuda
