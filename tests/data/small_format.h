// A shard's format with small blocks.
#pragma once

#include "data/shards/shard.h"

namespace nibble {

inline ShardHeader small_format(uint32_t vocab_size = 1000) {
  ShardHeader format;
  format.vocab_size = vocab_size;
  format.eos_id = 2;
  format.tokenizer = hash128("a tokenizer");
  format.block_bytes = 4096;
  return format;
}

}  // namespace nibble
