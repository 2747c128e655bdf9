#include "dist/zero/fold.h"

#include <algorithm>
#include <array>
#include <string>

#include "dist/device/device_memory.h"
#include "dist/device/launch.cuh"

namespace nibble::cuda {
namespace {

constexpr size_t most_inputs = 1024;
constexpr size_t usual_inputs = 64;
constexpr int threads = 128;

// The values are float4 if every array is aligned for it, else float.
template <size_t inputs_held>
struct FoldStack {
  const float* values[inputs_held];
  uint8_t joins[inputs_held];
  float* out;
  int64_t count;  // number of values
  int inputs;
};

__device__ __forceinline__ float sum_of(float left, float right) {
  return left + right;
}
__device__ __forceinline__ float4 sum_of(float4 left, float4 right) {
  return make_float4(left.x + right.x, left.y + right.y, left.z + right.z, left.w + right.w);
}

// A thread keeps the uppermost value of its stack in a register and the rest in its own column of shared memory:
// [height][threads].
template <class Value, size_t inputs_held>
__global__ void fold_kernel(FoldStack<inputs_held> fold) {
  const int64_t i = global_thread();
  if (i >= fold.count) return;
  Value* const stack = dynamic_shared<Value>() + threadIdx.x;
  const auto value = [&](int input) { return reinterpret_cast<const Value*>(fold.values[input])[i]; };
  int height = 0;
  Value top = value(0);
  Value next = value(fold.inputs > 1 ? 1 : 0);
  for (int input = 1; input < fold.inputs; ++input) {
    stack[height++ * threads] = top;
    top = next;
    if (input + 1 < fold.inputs) next = value(input + 1);
    for (int join = fold.joins[input]; join > 0; --join) top = sum_of(stack[--height * threads], top);
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

template <class Value, size_t inputs_held>
void launch_fold(const StackFold& problem, size_t skipped, size_t count) {
  FoldStack<inputs_held> fold{};
  for (size_t input = 0; input < problem.values.size(); ++input) fold.values[input] = problem.values[input] + skipped;
  std::ranges::copy(problem.joins, fold.joins);
  fold.out = problem.out + skipped;
  fold.count = static_cast<int64_t>(count);
  fold.inputs = static_cast<int>(problem.values.size());
  LaunchShape shape = one_thread_each(fold.count, threads);
  shape.shared_bytes = stack_height(problem.joins) * threads * sizeof(Value);
  launch("fold of gradient sums", fold_kernel<Value, inputs_held>, shape, fold);
}

bool aligned(const StackFold& problem) {
  const auto misplaced = [](const float* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % alignof(float4) != 0;
  };
  return !misplaced(problem.out) && std::ranges::none_of(problem.values, misplaced);
}

template <size_t inputs_held>
void run_fold(const StackFold& problem) {
  const size_t vectors = aligned(problem) ? problem.count / 4 : 0;
  launch_fold<float4, inputs_held>(problem, 0, vectors);
  launch_fold<float, inputs_held>(problem, 4 * vectors, problem.count - 4 * vectors);
}

}  // namespace

void add(float* left, const float* right, size_t count) {
  const std::array<const float*, 2> values{left, right};
  constexpr std::array<uint8_t, 2> joins{0, 1};
  run_fold<usual_inputs>({values, joins, left, count});
}

void fold(const FoldProblem& problem) {
  const size_t inputs = problem.fold.inputs();
  const StackFold stack{problem.values, problem.fold.joins_after(), problem.out, problem.count};
  if (inputs == 1) {
    if (problem.values.front() == problem.out) return;
    cuda::copy_bytes({.to = problem.out,
                      .to_device = DeviceKind::cuda,
                      .from = problem.values.front(),
                      .from_device = DeviceKind::cuda,
                      .bytes = problem.count * sizeof(float)});
  } else if (inputs <= usual_inputs) {
    run_fold<usual_inputs>(stack);
  } else if (inputs <= most_inputs) {
    run_fold<most_inputs>(stack);
  } else {
    throw Error(ExitCode::bad_config, "a gradient sum of " + std::to_string(inputs) + " parts on a GPU",
                "use a power of two of ranks and of groups of micro-batches");
  }
}

}  // namespace nibble::cuda
