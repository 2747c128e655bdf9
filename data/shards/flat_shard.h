// Token files of other programs that are one array of integers, with or without a header before it. Numbers are
// little-endian. Such files have no hashes: their size is checked when they are opened, and every id when it is read.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/shards/shard_file.h"
#include "data/shards/token_shard.h"

namespace nibble {

// Where the ids of a file lie and what they mean.
struct IdArray {
  std::string format;
  uint64_t offset = 0;  // bytes before the first id
  uint64_t tokens = 0;  // the file ends after the last one
  uint32_t token_bytes = 2;
  uint32_t vocab_size = 0;
  std::optional<uint32_t> eos_id = {};             // the token that ends a document
  std::optional<uint32_t> first_of_document = {};  // the token with which a document begins
};

class FlatShard : public TokenShard {
 public:
  // The file of a path and the ids that `layout` finds in it. Throws what `layout` throws.
  FlatShard(const std::filesystem::path& path, IdArray (*layout)(const ShardFile& file));

  const std::string& name() const override { return name_; }
  std::string format() const override { return ids_.format; }
  uint64_t tokens() const override { return ids_.tokens; }
  uint32_t token_bytes() const override { return ids_.token_bytes; }
  uint64_t file_bytes() const override { return file_.size(); }
  std::optional<uint64_t> documents() const override { return std::nullopt; }
  uint32_t vocab_size() const override { return ids_.vocab_size; }
  std::optional<uint32_t> eos_id() const override { return ids_.eos_id; }
  Hash128 tokenizer() const override { return {}; }
  // Returns a hash of the size and of the first and last 64 KiB: reading terabytes at the start of every run would take
  // too long.
  uint64_t identity() const override { return identity_; }
  void read(uint64_t first, std::span<int32_t> ids) override;
  // A document begins with the token that the format names, and goes on until the next one.
  void find_document_starts(uint64_t first, std::span<const int32_t> ids, std::span<int32_t> document_starts) override;

 private:
  ShardFile file_;
  std::string name_;
  IdArray ids_;
  uint64_t identity_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace nibble
