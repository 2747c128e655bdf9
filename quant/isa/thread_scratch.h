// Packing memory of GEMMs, one buffer for each thread.
#pragma once

#include <cstddef>

namespace nibble {

// Returns at least this many bytes, aligned to 64, that belong to the calling thread and are valid until its next call.
// These buffers are the only memory outside the arenas: they are bounded, taken at a thread's first GEMM and kept until
// the thread ends. Throws Error(out_of_memory).
std::byte* thread_scratch(size_t bytes);

}  // namespace nibble
