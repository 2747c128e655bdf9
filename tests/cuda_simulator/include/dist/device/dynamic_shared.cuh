// The simulator's header in place of the product's header of this name.
#pragma once

#include <cuda_runtime.h>

namespace nibble::cuda {

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(simulator::dynamic_shared_memory());
}

}  // namespace nibble::cuda
