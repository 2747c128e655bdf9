#include "dist/ranks/device_communicator.h"

#include <fmt/format.h>

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

std::unique_ptr<DeviceCommunicator> make_device_communicator(Communicator& host, DeviceKind device, double timeout_s) {
  if (device == DeviceKind::cpu || host.size() == 1) return nullptr;
  if constexpr (built_with_cuda) {
    const std::string problem = problem_of_any(host, cuda::nccl_problem());
    if (problem.empty()) return cuda::make_nccl_communicator(host, timeout_s);
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
