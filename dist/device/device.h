// The choice of the device that a run computes on.
#pragma once

#include <string_view>

#include "dist/device/device_kind.h"

namespace nibble {

// `request` is "auto", "cpu" or "cuda". "auto" takes a GPU if the build and the machine have one, and otherwise logs
// one line, once, that the run computes on the CPU. Throws ExitCode::bad_config for "cuda" without a CUDA build or a
// GPU, and for any other word.
DeviceKind resolve_device(std::string_view request);

}  // namespace nibble
