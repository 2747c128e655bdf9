#include "model/ops/rope.h"

#include <algorithm>

#include "dist/device/launch.cuh"
#include "model/ops/row/storage.h"
#include "quant/format/packs.cuh"

namespace nibble::cuda {
namespace {

constexpr int64_t head_lanes = 4;  // threads that share the heads of a token

template <class T>
struct Rotation {
  T* qkv;              // [tokens, stride], heads first: [heads, 2, half]
  const float* table;  // [at least length, half, 2]
  int64_t tokens, stride, length, heads, half;
  int64_t lanes;    // threads that share the heads of a token
  float direction;  // 1, or -1 to rotate back
};

// A thread has one pack of the angles of a token, and rotates every lanes-th head by them.
template <class T, int width>
__global__ void rope_kernel(Rotation<T> rotation) {
  const int64_t packs = rotation.half / width;
  const int64_t index = global_thread();
  const int64_t token = index / (packs * rotation.lanes);
  if (token >= rotation.tokens) return;
  const int64_t first = index % packs * width;
  const float* const angles = rotation.table + (token % rotation.length * rotation.half + first) * 2;
  float cosine[width];
  float sine[width];
#pragma unroll
  for (int i = 0; i < width; ++i) {
    const auto angle = load_pack<2>(angles + 2 * i);
    cosine[i] = angle.value[0];
    sine[i] = rotation.direction * angle.value[1];
  }
  T* const heads = rotation.qkv + token * rotation.stride + first;
  for (int64_t head = index / packs % rotation.lanes; head < rotation.heads; head += rotation.lanes) {
    T* const first_half = heads + head * 2 * rotation.half;
    auto x = load_floats<width>(first_half);
    auto y = load_floats<width>(first_half + rotation.half);
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const float rotated = x.value[i] * cosine[i] - y.value[i] * sine[i];
      y.value[i] = x.value[i] * sine[i] + y.value[i] * cosine[i];
      x.value[i] = rotated;
    }
    store_floats(first_half, x);
    store_floats(first_half + rotation.half, y);
  }
}

}  // namespace

void rope(const Rope& problem) {
  const int64_t width = problem.qkv.cols();
  const int64_t tokens = problem.qkv.rows();
  with_storage_type(problem.qkv.dtype(), [&]<class T>(T) {
    const int64_t heads = problem.query_heads + problem.kv_heads;
    const Rotation<T> rotation{.qkv = problem.qkv.as<T>(),
                               .table = problem.table.as<float>(),
                               .tokens = tokens,
                               .stride = width,
                               .length = problem.sequence_length,
                               .heads = heads,
                               .half = problem.head_dim / 2,
                               .lanes = std::min(heads, head_lanes),
                               .direction = problem.inverse ? -1.0f : 1.0f};
    with_pack<widest_pack<T>>(in_packs(widest_pack<T>, sizeof(T), rotation.half, {rotation.qkv}), [&](auto pack) {
      const int64_t threads = tokens * rotation.lanes * (rotation.half / pack());
      launch("rope", rope_kernel<T, pack()>, one_thread_each(threads), rotation);
    });
  });
}

}  // namespace nibble::cuda
