// The choice of the device that a run computes on.
#pragma once

#include <optional>
#include <string_view>

#include "dist/device/device_kind.h"

namespace nibble {

// `request` is "auto", "cpu" or "cuda". "auto" takes a GPU if there is one. Without a CUDA build, a driver or a GPU it
// logs one line, once, that the run computes on the CPU, and why. Throws ExitCode::bad_config if there may be a GPU but
// CUDA refuses to use it, such as with a driver that is too old; for "cuda" wherever "auto" would take the CPU; and for
// any other word. A GPU that is described counts as one that is there.
DeviceKind resolve_device(std::string_view request);

// A GPU that memory is planned for and that need not be there. While one is described, the device `cuda` can be
// resolved and measured for in every build; nothing may be computed on it.
struct DescribedGpu {
  // How products of quantised operands are computed: natively where the GPU has units for them, else decoded to BF16
  // first; decoded always; or by exact kernels, which decode nothing.
  enum class Products { native, emulated, exact };

  int capability = 0;  // compute capability: ten times the major number, and the minor one
  Products products = Products::native;
};

// Call it before memory is planned.
void describe_gpu(const std::optional<DescribedGpu>& gpu);
const std::optional<DescribedGpu>& described_gpu();

}  // namespace nibble
