// Packing memory of the products, one buffer a thread.
#pragma once

#include <cstddef>

namespace nibble {

// At least this many bytes, aligned to 64, of the calling thread. Valid until its next call. These buffers are the one
// memory outside the arenas: bounded, taken at a thread's first product and kept until it ends. Throws
// Error(out_of_memory).
std::byte* thread_scratch(size_t bytes);

}  // namespace nibble
