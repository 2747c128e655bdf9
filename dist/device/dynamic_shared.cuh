// The shared memory of a kernel whose size is given at launch. It has a file of its own, because the tests' simulator
// replaces it.
#pragma once

#include <cuda_runtime.h>

namespace nibble::cuda {

template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ uint4 dynamic_shared_memory[];  // aligned to 16 bytes
  return reinterpret_cast<T*>(dynamic_shared_memory);
}

}  // namespace nibble::cuda
