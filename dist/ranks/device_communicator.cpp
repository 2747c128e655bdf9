#include "dist/ranks/device_communicator.h"

#include <fmt/format.h>

#include <algorithm>

#include "dist/base/log.h"
#include "dist/device/dispatch.h"
#include "dist/ranks/nccl_communicator.h"
#include "dist/ranks/staged_communicator.h"

namespace nibble {

void DeviceCommunicator::start_sum(std::span<float> /*values*/, int /*root*/) {
  throw Error(ExitCode::bad_config, "gradients cannot be summed by NCCL: it is not in use",
              "set comm.reduction=tree, or install NCCL (libnccl.so.2)");
}

namespace {

// Collective. Returns why some rank cannot use NCCL; empty if all ranks can. Builds without CUDA do not ask.
[[maybe_unused]] std::string problem_of_any(Communicator& host, const std::string& problem) {
  const int64_t lowest = host.all_reduce_max(problem.empty() ? 0 : host.size() - host.rank());
  if (lowest == 0) return {};
  const int rank = host.size() - static_cast<int>(lowest);
  return fmt::format("on rank {}: {}", rank, broadcast_string(host, problem, rank));
}

}  // namespace

size_t gpu_bytes_of_libraries(int ranks) {
  // Kernels of cuBLASLt and cuDNN (some 500 MiB, loaded when first called), their workspaces of 64 MiB each, nibble's
  // own kernels, graphs, and what the allocator loses at the ends of blocks.
  constexpr size_t of_every_run = size_t{1536} << 20;
  // Buffers of NCCL, which it takes with the first operation of each kind. It connects a rank to its neighbours in
  // rings and trees: about the ranks of one machine, however many there are.
  constexpr size_t of_a_peer = size_t{307} << 20;
  constexpr int most_peers = 8;
  return of_every_run + static_cast<size_t>(std::min(ranks - 1, most_peers)) * of_a_peer;
}

size_t gpu_bytes_of_libraries(const Communicator& host, DeviceKind device) {
  if (device == DeviceKind::cpu) return 0;
  if constexpr (built_with_cuda) {
    if (host.size() > 1 && cuda::nccl_problem().empty()) return gpu_bytes_of_libraries(host.size());
  }
  return gpu_bytes_of_libraries(1);
}

std::unique_ptr<DeviceCommunicator> make_device_communicator(Communicator& host, DeviceKind device, double timeout_s,
                                                             bool nccl_only) {
  if (device == DeviceKind::cpu || host.size() == 1) return nullptr;
  if constexpr (built_with_cuda) {
    const std::string problem = problem_of_any(host, cuda::nccl_problem());
    if (problem.empty()) return cuda::make_nccl_communicator(host, timeout_s);
    if (nccl_only) {
      throw AgreedError(
          ExitCode::bad_config,
          fmt::format("cuda.strict: ranks would exchange through memory of the CPU: there is no NCCL {}", problem),
          "install libnccl.so.2, or put it in LD_LIBRARY_PATH, or set cuda.strict to false");
    }
    if (host.rank() == 0) {
      log_warning(
          "there is no NCCL {}. Gradients and weights pass through memory of the CPU and MPI, which is slower; install "
          "libnccl.so.2, or put it in LD_LIBRARY_PATH",
          problem);
    }
  }
  return std::make_unique<StagedCommunicator>(host, device);
}

}  // namespace nibble
