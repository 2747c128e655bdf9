// Which device a tensor lies on. What depends on the devices that a build has is in dist/device/dispatch.h alone, so
// that sources that do not choose a device are the same for every build.
#pragma once

#include <cstdint>

namespace nibble {

enum class DeviceKind : uint8_t { cpu, cuda };

}  // namespace nibble
