// The interface through which training reads a file of tokens, whichever program wrote it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "dist/base/hash.h"

namespace nibble {

class TokenShard {
 public:
  virtual ~TokenShard() = default;
  virtual const std::string& name() const = 0;
  virtual uint64_t tokens() const = 0;
  virtual uint64_t file_bytes() const = 0;
  virtual uint32_t vocab_size() const = 0;
  virtual uint32_t eos_id() const = 0;
  // Returns the hash of the tokenizer; all zero if the format does not name it.
  virtual Hash128 tokenizer() const = 0;
  // Returns a number that stands for the content in a run's fingerprint.
  virtual uint64_t identity() const = 0;
  // Reads tokens [first, first + ids.size()), which must lie in the shard. Every id is below vocab_size(); otherwise
  // the call throws ExitCode::bad_data with the shard, the byte and the id.
  virtual void read(uint64_t first, std::span<int32_t> ids) = 0;
  // For each token that read(first, ids) returned, writes the index in `ids` of the first token of its document, or 0
  // if that token lies before `ids`. The format decides which document a token between two documents belongs to.
  virtual void find_document_starts(uint64_t first, std::span<const int32_t> ids,
                                    std::span<int32_t> document_starts) = 0;
};

// Opens a shard of nibble's own (data/shards/shard.h) or of llm.c (data/shards/foreign_shard.h); the first bytes decide
// which.
std::unique_ptr<TokenShard> open_token_shard(const std::filesystem::path& path);

}  // namespace nibble
