// What the blocks of a model remember of the beginning of one text (LanguageModel::decode).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "dist/base/error.h"
#include "dist/device/arena.h"
#include "model/blocks/block_cache.h"

namespace nibble {

class TextCache {
 public:
  TextCache(const TextCache&) = delete;
  TextCache& operator=(const TextCache&) = delete;

  int64_t length() const { return length_; }  // tokens taken in
  // Forgets the tokens from `length` on, which is at most length().
  void truncate(int64_t length) {
    NIBBLE_CHECK(0 <= length && length <= length_, "a cache forgets tokens that it has");
    for (const std::unique_ptr<BlockCache>& block : blocks_) {
      if (block) block->truncate(length);
    }
    length_ = length;
  }
  uint64_t memory_bytes() const { return memory_.planned_bytes(); }

 private:
  friend class LanguageModel;
  explicit TextCache(DeviceKind device) : memory_("what blocks remember of a text", device) {}

  Arena memory_;
  std::vector<std::unique_ptr<BlockCache>> blocks_;  // of each block; null: it remembers nothing
  int64_t length_ = 0;
};

}  // namespace nibble
