// Where a layer's memory comes from.
#pragma once

#include <cstdint>

#include "dist/device/arena.h"

namespace nibble {

// `saved` lives from forward to backward; `workspace` within one call, so that layers share it.
struct LayerArenas {
  Arena& weights;
  Arena& saved;
  Arena& workspace;
  int64_t sequences = 0;  // of a micro-batch: the largest that a call brings
  int64_t sequence_length = 0;
  bool training = true;
  bool document_mask = false;  // calls may bring documents

  int64_t tokens() const { return sequences * sequence_length; }
};

}  // namespace nibble
