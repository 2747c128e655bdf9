#include "dist/device/dispatch.h"

#include "dist/base/error.h"

namespace nibble {

void fail_no_cuda() {
  throw Error(ExitCode::bad_config, "a CUDA device was asked for, but this build of nibble has no CUDA backend",
              "set device: cpu, or build with -DNIBBLE_CUDA=ON on a machine with the CUDA toolkit");
}

}  // namespace nibble
