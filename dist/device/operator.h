// NIBBLE_OPERATOR declares an operator: the function that chooses the device (dist/device/dispatch.h), and its
// implementations cpu::function in the .cpp file and cuda::function in the .cu file, all with one signature:
//   NIBBLE_OPERATOR(void rms_norm_forward(const RmsNormForward& problem));
// A function that gets its device as an argument, because no other argument is on a device, is declared without it.
#pragma once

#define NIBBLE_OPERATOR(...) \
  namespace cpu {            \
  __VA_ARGS__;               \
  }                          \
  namespace cuda {           \
  __VA_ARGS__;               \
  }                          \
  __VA_ARGS__
