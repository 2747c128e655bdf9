// The one place where a device is chosen. A header declares an operator family as a plain function; its body is
//   void rms_norm_forward(const RmsNormForward& problem) {
//     NIBBLE_DISPATCH(problem.output.device(), rms_norm_forward, problem);
//   }
// The .cpp beside it has cpu::rms_norm_forward and the .cu beside it has cuda::rms_norm_forward. A build without CUDA
// has no .cu files; asking it for a CUDA tensor is an error, never a silent wrong result.
#pragma once

#include "dist/device/device_kind.h"

namespace nibble {

[[noreturn]] void fail_no_cuda();

#ifdef NIBBLE_WITH_CUDA
inline constexpr bool built_with_cuda = true;
#define NIBBLE_DISPATCH(device, function, ...) \
  ((device) == ::nibble::DeviceKind::cuda ? cuda::function(__VA_ARGS__) : cpu::function(__VA_ARGS__))
#else
inline constexpr bool built_with_cuda = false;
#define NIBBLE_DISPATCH(device, function, ...) \
  ((device) == ::nibble::DeviceKind::cuda ? ::nibble::fail_no_cuda() : void(), cpu::function(__VA_ARGS__))
#endif

}  // namespace nibble
