// What a block remembers of the beginning of a text, so that the tokens after it can be computed alone.
#pragma once

#include <cstdint>

namespace nibble {

class BlockCache {
 public:
  BlockCache() = default;
  virtual ~BlockCache() = default;
  BlockCache(const BlockCache&) = delete;
  BlockCache& operator=(const BlockCache&) = delete;

  virtual int64_t length() const = 0;  // tokens taken in
  // Forgets the tokens from `length` on, which is at most length().
  virtual void truncate(int64_t length) = 0;
};

}  // namespace nibble
