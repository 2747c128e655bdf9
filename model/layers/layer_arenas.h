// The arenas that a layer takes its memory from, and the sizes that it allocates for.
#pragma once

#include <cstdint>

#include "dist/device/arena.h"

namespace nibble {

// Memory of `saved` lives from forward to backward. Memory of `workspace` lives within one call, so layers share it.
struct LayerArenas {
  Arena& weights;
  Arena& saved;
  Arena& workspace;
  int64_t sequences = 0;  // of the largest micro-batch that a call brings
  int64_t sequence_length = 0;
  bool training = true;
  bool document_mask = false;  // calls may bring document starts
  bool decoding = false;       // calls may bring rows that are operands of their own

  int64_t tokens() const { return sequences * sequence_length; }
};

}  // namespace nibble
