// The choice of the device that a run computes on.
#pragma once

#include <string_view>

#include "dist/device/device_kind.h"

namespace nibble {

// `request` is "auto", "cpu" or "cuda". "auto" takes a GPU if there is one. Without a CUDA build, a driver or a GPU it
// logs one line, once, that the run computes on the CPU, and why. Throws ExitCode::bad_config if there may be a GPU but
// CUDA refuses to use it, such as with a driver that is too old; for "cuda" wherever "auto" would take the CPU; and for
// any other word.
DeviceKind resolve_device(std::string_view request);

}  // namespace nibble
