// The device that a tensor is on. Only dist/device/dispatch.h depends on which devices a build has, so that sources
// that do not choose a device are the same in every build.
#pragma once

#include <cstdint>

namespace nibble {

enum class DeviceKind : uint8_t { cpu, cuda };

}  // namespace nibble
