#include "dist/device/device.h"

#include <fmt/format.h>

#include <mutex>

#include "dist/base/error.h"
#include "dist/base/log.h"
#include "dist/device/cuda_device.h"
#include "dist/device/dispatch.h"

namespace nibble {
namespace {

DeviceKind fall_back_to_cpu(std::string_view reason) {
  static std::once_flag said;
  std::call_once(said, [&] { log_info("running on the CPU ({})", reason); });
  return DeviceKind::cpu;
}

std::optional<DescribedGpu>& gpu_of_process() {
  static std::optional<DescribedGpu> gpu;
  return gpu;
}

}  // namespace

void describe_gpu(const std::optional<DescribedGpu>& gpu) {
  gpu_of_process() = gpu;
}

const std::optional<DescribedGpu>& described_gpu() {
  return gpu_of_process();
}

DeviceKind resolve_device(std::string_view request) {
  if (request == "cpu") return DeviceKind::cpu;
  const bool automatic = request == "auto";
  if (described_gpu() && (automatic || request == "cuda")) return DeviceKind::cuda;
  if (!automatic && request != "cuda") {
    throw Error(ExitCode::bad_config, fmt::format("unknown device \"{}\"", request), "use auto, cpu or cuda");
  }
  if constexpr (built_with_cuda) {
    const cuda::VisibleDevices gpus = cuda::visible_devices();
    if (gpus.count > 0) return DeviceKind::cuda;
    if (automatic && gpus.no_device) return fall_back_to_cpu(gpus.problem);
    throw Error(ExitCode::bad_config,
                automatic ? gpus.problem : fmt::format("device cuda was asked for, but {}", gpus.problem),
                fmt::format("{}; or set device: {}", gpus.remedy, gpus.no_device ? "auto" : "cpu"));
  } else {
    if (automatic) return fall_back_to_cpu("built without the CUDA backend");
    fail_no_cuda();
  }
}

}  // namespace nibble
