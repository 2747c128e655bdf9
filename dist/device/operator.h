// NIBBLE_OPERATOR declares an operator: the function for everybody, which chooses the device (dist/device/dispatch.h),
// and its implementations cpu::function in the .cpp file and cuda::function in the .cu file, all with one signature:
//   NIBBLE_OPERATOR(void rms_norm_forward(const RmsNormForward& problem));
// A function whose device is an argument, because none of the others lies on a device, is declared by hand.
#pragma once

#define NIBBLE_OPERATOR(...) \
  namespace cpu {            \
  __VA_ARGS__;               \
  }                          \
  namespace cuda {           \
  __VA_ARGS__;               \
  }                          \
  __VA_ARGS__
