// Token files of other programs that are one array of integers, with or without a header before it. Numbers are
// little-endian. Such files have no hashes: their size is checked when they are opened, and every id when it is read.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/shards/shard_file.h"
#include "data/shards/token_shard.h"

namespace nibble {

// How an id is stored.
enum class IdType : uint8_t { u8, i8, u16, i16, u32, i32, u64, i64 };
uint32_t bytes_of(IdType type);
std::string_view name_of(IdType type);  // "uint16"

// Where the ids of a file lie and what they mean.
struct IdArray {
  std::string format;
  uint64_t offset = 0;  // bytes before the first id
  uint64_t tokens = 0;  // the file ends after the last one
  IdType type = IdType::u16;
  uint32_t vocab_size = 0;
  std::optional<uint32_t> eos_id = {};             // the token that ends a document
  std::optional<uint32_t> first_of_document = {};  // the token with which a document begins
};

// Returns the vocabulary size of ids of this type in a file that does not state it: data.vocab_size, or else what the
// layout allows, at most `usual` (0 = no more is known than the type) and the model's vocabulary. Throws
// ExitCode::bad_config, with the file's name, if none of them bounds it: for ids of 4 and 8 bytes.
uint32_t unstated_vocabulary(const std::string& name, IdType type, uint32_t usual, const ShardOptions& options);

class FlatShard : public TokenShard {
 public:
  // The file of a path and the ids that `layout` finds in it. Throws what `layout` throws.
  FlatShard(const std::filesystem::path& path, const ShardOptions& options,
            IdArray (*layout)(const ShardFile& file, const ShardOptions& options));
  // The ids in a file that has been looked at. `more` is hashed into the identity: other files that belong to it.
  FlatShard(std::unique_ptr<ShardFile> file, IdArray ids, uint64_t more = 0);

  const std::string& name() const override { return name_; }
  std::string format() const override { return ids_.format; }
  uint64_t tokens() const override { return ids_.tokens; }
  uint32_t token_bytes() const override { return bytes_of(ids_.type); }
  uint64_t file_bytes() const override { return file_->size(); }
  std::optional<uint64_t> documents() const override { return std::nullopt; }
  uint32_t vocab_size() const override { return ids_.vocab_size; }
  bool states_vocabulary() const override { return false; }
  bool knows_documents() const override { return ids_.first_of_document.has_value(); }
  std::optional<uint32_t> eos_id() const override { return ids_.eos_id; }
  Hash128 tokenizer() const override { return {}; }
  // Returns a hash of the size and of the first and last 64 KiB: reading terabytes at the start of every run would take
  // too long.
  uint64_t identity() const override { return identity_; }
  void read(uint64_t first, std::span<int32_t> ids) override;
  // A document begins with the token that the format names, and goes on until the next one.
  void find_document_starts(uint64_t first, std::span<const int32_t> ids, std::span<int32_t> document_starts) override;

 private:
  std::unique_ptr<ShardFile> file_;
  std::string name_;
  IdArray ids_;
  uint64_t identity_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace nibble
