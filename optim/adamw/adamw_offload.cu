// AdamW with its state in memory of the CPU and weights and gradients on a GPU.
#include <algorithm>
#include <array>

#include "dist/device/cuda_device.h"
#include "dist/device/launch.cuh"
#include "optim/adamw/adamw_problem.h"

namespace nibble::cuda {
namespace {

constexpr uint64_t strip = uint64_t{1} << 20;  // elements, a multiple of 8

// Memory of the CPU for one strip, and the event of its having been filled.
struct Slot {
  float* gradients = nullptr;
  void* weights = nullptr;
  cudaEvent_t filled = nullptr;
};
struct Slots {
  std::array<Slot, 2> slot;
  cudaEvent_t before = nullptr;  // on the compute stream: gradients and weights are complete
  cudaEvent_t after = nullptr;   // on the communication stream: the weights have been copied back
};

cudaEvent_t make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  return event;
}

// The slots are made once a process and never released, because the driver may be gone at the end of the process.
const Slots& slots() {
  static const Slots* const made = [] {
    auto* result = new Slots;
    for (Slot& slot : result->slot) {
      slot.gradients = static_cast<float*>(allocate_pinned(strip * sizeof(float)));
      slot.weights = allocate_pinned(strip * sizeof(float));
      slot.filled = make_event();
    }
    result->before = make_event();
    result->after = make_event();
    return result;
  }();
  return *made;
}

void copy_part(const Tensor& device, void* host, uint64_t begin, uint64_t end, cudaMemcpyKind kind) {
  const Tensor part = device.slice(static_cast<int64_t>(begin), static_cast<int64_t>(end));
  void* const to = kind == cudaMemcpyDeviceToHost ? host : part.data();
  const void* const from = kind == cudaMemcpyDeviceToHost ? part.data() : host;
  check(cudaMemcpyAsync(to, from, part.bytes(), kind, communication_stream()), "copy of a strip of the weights");
}

}  // namespace

void update_in_strips(const StripUpdate& problem) {
  const auto elements = static_cast<uint64_t>(problem.gradients.elements());
  const uint64_t strips = div_ceil(elements, strip);
  const Slots& both = slots();
  const auto end_of = [&](uint64_t number) { return std::min(elements, (number + 1) * strip); };
  // The order of the stream guarantees that a slot is filled again only after its weights have left.
  const auto fill = [&](uint64_t number) {
    const Slot& slot = both.slot[number % 2];
    copy_part(problem.gradients, slot.gradients, number * strip, end_of(number), cudaMemcpyDeviceToHost);
    copy_part(problem.weights, slot.weights, number * strip, end_of(number), cudaMemcpyDeviceToHost);
    check(cudaEventRecord(slot.filled, communication_stream()), "cudaEventRecord");
  };
  check(cudaEventRecord(both.before, compute_stream()), "cudaEventRecord");
  check(cudaStreamWaitEvent(communication_stream(), both.before, 0), "cudaStreamWaitEvent");
  if (strips > 0) fill(0);
  for (uint64_t number = 0; number < strips; ++number) {
    if (number + 1 < strips) fill(number + 1);
    const Slot& slot = both.slot[number % 2];
    check(cudaEventSynchronize(slot.filled), "a strip of gradients");
    const auto count = static_cast<int64_t>(end_of(number) - number * strip);
    problem.update(number * strip, end_of(number), Tensor(slot.gradients, DType::f32, {count}),
                   Tensor(slot.weights, problem.weights.dtype(), {count}));
    copy_part(problem.weights, slot.weights, number * strip, end_of(number), cudaMemcpyHostToDevice);
  }
  check(cudaEventRecord(both.after, communication_stream()), "cudaEventRecord");
  check(cudaStreamWaitEvent(compute_stream(), both.after, 0), "cudaStreamWaitEvent");
}

}  // namespace nibble::cuda
