#include "dist/zero/fold.h"

#include <algorithm>
#include <array>
#include <string>

#include "dist/device/device_memory.h"
#include "dist/device/launch.cuh"

namespace nibble::cuda {
namespace {

constexpr size_t most_places = 1024;
constexpr size_t usual_places = 64;
constexpr int threads = 128;

// The values are float4 if every array is aligned for it, else float.
template <size_t places_held>
struct FoldStack {
  const float* values[places_held];
  uint8_t joins[places_held];
  float* out;
  int64_t count;  // number of values
  int places;
};

__device__ __forceinline__ float sum_of(float left, float right) {
  return left + right;
}
__device__ __forceinline__ float4 sum_of(float4 left, float4 right) {
  return make_float4(left.x + right.x, left.y + right.y, left.z + right.z, left.w + right.w);
}

// A thread keeps the uppermost value of its stack in a register and the rest in its own column of shared memory:
// [height][threads].
template <class Value, size_t places_held>
__global__ void fold_kernel(FoldStack<places_held> fold) {
  const int64_t i = global_thread();
  if (i >= fold.count) return;
  Value* const stack = dynamic_shared<Value>() + threadIdx.x;
  const auto value = [&](int place) { return reinterpret_cast<const Value*>(fold.values[place])[i]; };
  int height = 0;
  Value top = value(0);
  Value next = value(fold.places > 1 ? 1 : 0);
  for (int place = 1; place < fold.places; ++place) {
    stack[height++ * threads] = top;
    top = next;
    if (place + 1 < fold.places) next = value(place + 1);
    for (int join = fold.joins[place]; join > 0; --join) top = sum_of(stack[--height * threads], top);
  }
  reinterpret_cast<Value*>(fold.out)[i] = top;
}

struct StackFold {
  std::span<const float* const> values;
  std::span<const uint8_t> joins;
  float* out;
  size_t count;
};

// Returns how many values are under the uppermost one at most.
size_t stack_height(std::span<const uint8_t> joins) {
  size_t height = 0;
  size_t highest = 0;
  for (const uint8_t count : joins.subspan(1)) {
    highest = std::max(highest, ++height);
    height -= count;
  }
  return highest;
}

template <class Value, size_t places_held>
void launch_fold(const StackFold& problem, size_t skipped, size_t count) {
  FoldStack<places_held> fold{};
  for (size_t place = 0; place < problem.values.size(); ++place) fold.values[place] = problem.values[place] + skipped;
  std::ranges::copy(problem.joins, fold.joins);
  fold.out = problem.out + skipped;
  fold.count = static_cast<int64_t>(count);
  fold.places = static_cast<int>(problem.values.size());
  LaunchShape shape = one_thread_each(fold.count, threads);
  shape.shared_bytes = stack_height(problem.joins) * threads * sizeof(Value);
  launch("fold of gradient sums", fold_kernel<Value, places_held>, shape, fold);
}

bool aligned(const StackFold& problem) {
  const auto misplaced = [](const float* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % alignof(float4) != 0;
  };
  return !misplaced(problem.out) && std::ranges::none_of(problem.values, misplaced);
}

template <size_t places_held>
void run_fold(const StackFold& problem) {
  const size_t vectors = aligned(problem) ? problem.count / 4 : 0;
  launch_fold<float4, places_held>(problem, 0, vectors);
  launch_fold<float, places_held>(problem, 4 * vectors, problem.count - 4 * vectors);
}

}  // namespace

void add(float* left, const float* right, size_t count) {
  const std::array<const float*, 2> values{left, right};
  constexpr std::array<uint8_t, 2> joins{0, 1};
  run_fold<usual_places>({values, joins, left, count});
}

void fold(const FoldProblem& problem) {
  const size_t places = problem.plan.places();
  const StackFold stack{problem.values, problem.plan.joins_after(), problem.out, problem.count};
  if (places == 1) {
    if (problem.values.front() == problem.out) return;
    cuda::copy_bytes({.to = problem.out,
                      .to_device = DeviceKind::cuda,
                      .from = problem.values.front(),
                      .from_device = DeviceKind::cuda,
                      .bytes = problem.count * sizeof(float)});
  } else if (places <= usual_places) {
    run_fold<usual_places>(stack);
  } else if (places <= most_places) {
    run_fold<most_places>(stack);
  } else {
    throw Error(ExitCode::bad_config, "a gradient sum of " + std::to_string(places) + " parts on a GPU",
                "use a power of two of ranks and of groups of micro-batches");
  }
}

}  // namespace nibble::cuda
