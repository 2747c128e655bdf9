#include "model/ops/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <vector>

#include "dist/base/vectorize.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "model/ops/row/storage.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {
namespace {

constexpr size_t token_grain = 16;
constexpr int64_t slice = 32;  // elements of half a head

// The heads and angles of one token.
template <class T>
struct Rotation {
  T* heads;            // [count, 2, half]
  const float* table;  // [half, 2]
  int64_t count, half;
  float direction;  // 1, or -1 to rotate back
};

// Rotates elements [begin, begin + size) of both halves of every head.
template <class T>
NIBBLE_INLINE void rotate_slice(const Rotation<T>& rotation, int64_t begin, int64_t size) {
  float cosines[slice];
  float sines[slice];
  for (int64_t i = 0; i < size; ++i) {
    cosines[i] = rotation.table[2 * (begin + i)];
    sines[i] = rotation.direction * rotation.table[2 * (begin + i) + 1];
  }
  for (int64_t head = 0; head < rotation.count; ++head) {
    T* __restrict first = rotation.heads + head * 2 * rotation.half + begin;
    T* __restrict second = first + rotation.half;
#pragma GCC ivdep
    for (int64_t i = 0; i < size; ++i) {
      const float x = to_float(first[i]);
      const float y = to_float(second[i]);
      store(first[i], x * cosines[i] - y * sines[i]);
      store(second[i], x * sines[i] + y * cosines[i]);
    }
  }
}

template <class T>
NIBBLE_VECTORIZE void rotate_heads(const Rotation<T>& rotation) {
  int64_t begin = 0;
  for (; begin + slice <= rotation.half; begin += slice) rotate_slice(rotation, begin, slice);  // constant size
  if (begin < rotation.half) rotate_slice(rotation, begin, rotation.half - begin);
}

// Returns the frequency after the scaling.
double scaled(const RopeFrequencies& scaling, double frequency) {
  if (scaling.scaling_factor == 1) return frequency;
  const double turns = static_cast<double>(scaling.original_length) * frequency / (2 * std::numbers::pi);
  const double kept = std::clamp(
      (turns - scaling.low_frequency_factor) / (scaling.high_frequency_factor - scaling.low_frequency_factor), 0.0,
      1.0);
  return kept * frequency + (1 - kept) * frequency / scaling.scaling_factor;
}

void check(const Rope& problem) {
  NIBBLE_CHECK(problem.head_dim % 2 == 0 && problem.sequence_length > 0, "rope needs an even head_dim and a length");
  const int64_t width = (problem.query_heads + 2 * problem.kv_heads) * problem.head_dim;
  const int64_t tokens = problem.qkv.rows();
  check_matrix(problem.qkv, problem.qkv.dtype(), tokens, width);
  NIBBLE_CHECK(tokens % problem.sequence_length == 0, "tokens are whole sequences");
  NIBBLE_CHECK(problem.table.rank() == 3 && problem.table.size(0) >= problem.sequence_length &&
                   problem.table.size(1) * 2 == problem.head_dim && problem.table.size(2) == 2,
               "rope table does not fit");
}

}  // namespace

void fill_rope_table(const RopeFrequencies& frequencies, const Tensor& table) {
  NIBBLE_CHECK(table.rank() == 3 && table.size(2) == 2, "rope table is [sequence_length, head_dim / 2, 2]");
  std::vector<float> values(static_cast<size_t>(table.elements()));
  const int64_t half = table.size(1);
  for (int64_t i = 0; i < half; ++i) {
    const double frequency =
        scaled(frequencies, std::pow(frequencies.theta, -static_cast<double>(i) / static_cast<double>(half)));
    for (int64_t position = 0; position < table.size(0); ++position) {
      const double angle = static_cast<double>(position) * frequency;
      float* entry = values.data() + (position * half + i) * 2;
      entry[0] = static_cast<float>(std::cos(angle));
      entry[1] = static_cast<float>(std::sin(angle));
    }
  }
  copy(tensor_of(std::span(values), {table.elements()}), table);
}

namespace cpu {

void rope(const Rope& problem) {
  const int64_t width = problem.qkv.cols();
  const int64_t tokens = problem.qkv.rows();
  with_storage_type(problem.qkv.dtype(), [&]<class T>(T) {
    T* qkv = problem.qkv.as<T>();
    const float* table = problem.table.as<float>();
    const size_t stride = static_cast<size_t>(width);
    const size_t length = static_cast<size_t>(problem.sequence_length);
    const int64_t heads = problem.query_heads + problem.kv_heads;
    const int64_t half = problem.head_dim / 2;
    const float direction = problem.inverse ? -1.0f : 1.0f;
    parallel_for(static_cast<size_t>(tokens), token_grain, [=](size_t begin, size_t end) {
      for (size_t token = begin; token < end; ++token) {
        const float* angles = table + static_cast<int64_t>(token % length) * problem.head_dim;
        rotate_heads(Rotation<T>{qkv + token * stride, angles, heads, half, direction});
      }
    });
  });
}

}  // namespace cpu

void rope(const Rope& problem) {
  const ProfileScope scope(OperatorFamily::attention, "rope");
  check(problem);
  NIBBLE_DISPATCH(problem.qkv.device(), rope, problem);
}

}  // namespace nibble
