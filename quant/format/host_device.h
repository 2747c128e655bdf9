// Marks a function whose bits are the same on the CPU and in CUDA kernels, because both compile this one definition.
#pragma once

#ifdef __CUDACC__
#define NIBBLE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define NIBBLE_HOST_DEVICE inline __attribute__((always_inline))
#endif
