#include "dist/device/device.h"

#include <fmt/format.h>

#include <mutex>

#include "dist/base/error.h"
#include "dist/base/log.h"
#include "dist/device/cuda_device.h"
#include "dist/device/dispatch.h"

namespace nibble {
namespace {

bool gpu_is_visible() {
  if constexpr (built_with_cuda) {
    return cuda::visible_devices() > 0;
  } else {
    return false;
  }
}

void say_once_that_the_cpu_is_used() {
  static std::once_flag said;
  std::call_once(said, [] {
    log_info("running on the CPU ({})", built_with_cuda ? "no GPU is visible" : "built without the CUDA backend");
  });
}

}  // namespace

DeviceKind resolve_device(std::string_view request) {
  if (request == "cpu") return DeviceKind::cpu;
  if (request == "auto") {
    if (gpu_is_visible()) return DeviceKind::cuda;
    say_once_that_the_cpu_is_used();
    return DeviceKind::cpu;
  }
  if (request != "cuda") {
    throw Error(ExitCode::bad_config, fmt::format("unknown device \"{}\"", request), "use auto, cpu or cuda");
  }
  if (!built_with_cuda) fail_no_cuda();
  if (!gpu_is_visible()) {
    throw Error(ExitCode::bad_config, "device cuda was asked for, but no GPU is visible",
                "check nvidia-smi and CUDA_VISIBLE_DEVICES, or set device: auto");
  }
  return DeviceKind::cuda;
}

}  // namespace nibble
