#include "model/ops/elementwise.h"

#include <cstring>

#include "dist/base/vectorize.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "model/ops/row/map_row.h"
#include "model/ops/row/storage.h"

namespace nibble {
namespace {

constexpr size_t grain = 1 << 15;  // elements

struct Sum {
  NIBBLE_INLINE float operator()(float a, float b) const { return a + b; }
};

template <class T>
NIBBLE_VECTORIZE void add_range(const T* a, const T* b, T* output, size_t count) {
  map_row(count, output, Sum{}, a, b);
}

}  // namespace

namespace cpu {

void add(const Tensor& a, const Tensor& b, const Tensor& output) {
  check_vector(a, output.dtype(), output.elements());
  check_vector(b, output.dtype(), output.elements());
  with_storage_type(output.dtype(), [&]<class T>(T) {
    const T* left = a.as<T>();
    const T* right = b.as<T>();
    T* sum = output.as<T>();
    parallel_for(static_cast<size_t>(output.elements()), grain,
                 [=](size_t begin, size_t end) { add_range(left + begin, right + begin, sum + begin, end - begin); });
  });
}

void fill_zero(const Tensor& tensor) {
  std::byte* data = static_cast<std::byte*>(tensor.data());
  parallel_for(tensor.bytes(), 4 * grain, [=](size_t begin, size_t end) { std::memset(data + begin, 0, end - begin); });
}

}  // namespace cpu

void add(const Tensor& a, const Tensor& b, const Tensor& output) {
  const ProfileScope scope(OperatorFamily::norm, "residual_sum");
  NIBBLE_DISPATCH(output.device(), add, a, b, output);
}

void fill_zero(const Tensor& tensor) {
  const ProfileScope scope(OperatorFamily::norm, "fill_zero");
  NIBBLE_DISPATCH(tensor.device(), fill_zero, tensor);
}

}  // namespace nibble
