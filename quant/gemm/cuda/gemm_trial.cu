#include "quant/gemm/cuda/gemm_trial.h"

#include <algorithm>
#include <optional>

#include "dist/device/device_memory.h"
#include "dist/device/launch.cuh"
#include "quant/tensor/tensor_copy.h"

namespace nibble::cuda {
namespace {

constexpr int threads = 256;
constexpr int64_t most_blocks = 1024;

struct Fingerprint {
  const uint16_t* words;
  int64_t count;
  unsigned long long* sum;
};

// Mixes a word with its place: the finaliser of MurmurHash3.
__device__ __forceinline__ uint64_t mixed(uint64_t word, int64_t place) {
  uint64_t bits = static_cast<uint64_t>(place) * 0x9E3779B97F4A7C15ULL ^ word;
  bits = (bits ^ bits >> 33) * 0xFF51AFD7ED558CCDULL;
  bits = (bits ^ bits >> 33) * 0xC4CEB9FE1A85EC53ULL;
  return bits ^ bits >> 33;
}

// Integer sums do not depend on their order.
__global__ void __launch_bounds__(threads) fingerprint_kernel(Fingerprint problem) {
  unsigned long long sum = 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * threads;
  for (int64_t i = global_thread(); i < problem.count; i += step) sum += mixed(problem.words[i], i);
  atomicAdd(problem.sum, sum);
}

// Returns a number that depends on every bit of the output and on its place. Equal bits give equal numbers; other bits
// give another number but for one case in about 2^64. Waits for the device.
uint64_t fingerprint_of(const Tensor& output, void* workspace) {
  uint64_t result = 0;
  cuda::zero_bytes(workspace, sizeof result);
  const Fingerprint problem{.words = static_cast<const uint16_t*>(output.data()),
                            .count = static_cast<int64_t>(output.bytes() / sizeof(uint16_t)),
                            .sum = static_cast<unsigned long long*>(workspace)};
  const int64_t blocks = std::min(div_ceil<int64_t>(problem.count, threads), most_blocks);
  launch("fingerprint of an output", fingerprint_kernel, {dim3(narrow<unsigned>(blocks)), dim3(threads)}, problem);
  cuda::copy_bytes({.to = &result, .from = workspace, .from_device = DeviceKind::cuda, .bytes = sizeof result});
  return result;
}

}  // namespace

std::string fault_in_trial(const GemmTrial& trial, const std::function<void()>& run) {
  const GemmProblem& problem = trial.problem;
  std::optional<HostCopy> before;
  if (problem.accumulate) before.emplace(problem.output);
  const auto restore = [&] {
    if (before) copy(before->tensor(), problem.output);
  };
  const GemmCheck first(problem, gemm_tile(trial.part, 0));
  const GemmCheck last(problem, gemm_tile(trial.part, static_cast<uint64_t>(gemm_tiles(trial.part)) - 1));
  run();
  std::string fault = first.difference(/*exact=*/false);
  if (fault.empty()) fault = last.difference(/*exact=*/false);
  if (fault.empty()) {
    const uint64_t fingerprint = fingerprint_of(problem.output, trial.workspace);
    restore();
    run();
    if (fingerprint_of(problem.output, trial.workspace) != fingerprint) fault = "two runs give other bits";
  }
  if (!fault.empty()) restore();
  return fault;
}

}  // namespace nibble::cuda
