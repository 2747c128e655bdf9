// What training needs of a file of tokens, whoever wrote it.
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
  // All zero where the format does not tell the tokenizer.
  virtual Hash128 tokenizer() const = 0;
  // Stands for the content in a run's fingerprint.
  virtual uint64_t identity() const = 0;
  // Tokens [first, first + ids.size()), which must lie in the shard; every id is below vocab_size(), or the call throws
  // ExitCode::bad_data with the shard, the byte and the id.
  virtual void read(uint64_t first, std::span<int32_t> ids) = 0;
  // For each token that read(first, ids) gave: the index in `ids` of the first token of its document, 0 where that lies
  // before `ids`. Which document the token between two of them belongs to is told by the format.
  virtual void find_documents(uint64_t first, std::span<const int32_t> ids, std::span<int32_t> starts) = 0;
};

// Opens a shard of nibble's own (data/shards/shard.h), or one of llm.c (data/shards/foreign_shard.h), by its first
// bytes.
std::unique_ptr<TokenShard> open_token_shard(const std::filesystem::path& path);

}  // namespace nibble
