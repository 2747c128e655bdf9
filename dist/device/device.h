// Which device a run computes on.
#pragma once

#include <string_view>

#include "dist/device/dispatch.h"

namespace nibble {

// request: "auto", "cpu" or "cuda". auto takes a GPU where the build and the machine have one, and otherwise says once,
// in one line, that it runs on the CPU. Throws ExitCode::bad_config for "cuda" without a CUDA build or a GPU, and for
// any other word.
DeviceKind resolve_device(std::string_view request);

}  // namespace nibble
