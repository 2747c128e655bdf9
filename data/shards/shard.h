// Token shards, version 1: tokens of whole documents, with a hash of every block. docs/formats.md is the specification.
//
//   header, 4096 bytes | tokens | document ends, u64 each | hashes, u64 each: every block of tokens, the document ends
//
// Everything is little-endian. The header has a hash of the hashes and a hash of itself, so it identifies the content.
// The sources are shard_header.cpp, shard_reader.cpp and shard_writer.cpp; shard_reader.cpp also has the row of this
// format (data/shards/shard_format.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/shards/shard_file.h"
#include "data/shards/token_shard.h"
#include "dist/base/file.h"
#include "dist/base/hash.h"

namespace nibble {

struct ShardHeader {
  static constexpr uint64_t bytes = 4096;
  static constexpr uint32_t max_vocab_size = 1U << 24U;

  uint32_t token_bytes = 2;  // 2 or 4
  uint64_t tokens = 0;
  uint64_t documents = 0;
  uint32_t vocab_size = 0;
  uint32_t eos_id = 0;  // the last token of every document
  Hash128 tokenizer;
  uint32_t block_bytes = 1U << 20U;  // a power of two, 4 KiB to 1 GiB
  uint64_t content_hash = 0;         // XXH3-64 of the hashes at the end of the file

  // Offsets and sizes are in bytes and valid for headers that parse() has accepted.
  uint64_t payload_bytes() const { return tokens * token_bytes; }
  uint64_t blocks() const { return (payload_bytes() + block_bytes - 1) / block_bytes; }
  uint64_t documents_offset() const { return bytes + payload_bytes(); }
  uint64_t hashes_offset() const { return documents_offset() + documents * sizeof(uint64_t); }
  uint64_t file_bytes() const { return hashes_offset() + (blocks() + 1) * sizeof(uint64_t); }

  std::array<std::byte, bytes> serialize() const;
  // Returns whether a file that begins with these bytes is one of nibble's shards, of whatever version and however
  // damaged.
  static bool recognises(std::span<const std::byte> start);
  // Checks every field, and that a file of `file_size` bytes is exactly what the header describes. Throws
  // ExitCode::bad_data if not.
  static ShardHeader parse(std::span<const std::byte> data, uint64_t file_size, const std::string& name);
};

// Writes one shard. It needs memory for one block and 8 bytes a document.
class ShardWriter {
 public:
  // Takes vocab_size, eos_id, tokenizer and block_bytes from `format`; token_bytes is 2 if every id fits, else 4.
  ShardWriter(const std::filesystem::path& path, const ShardHeader& format);
  // Appends the tokens and the end-of-document token. Throws ExitCode::bad_data for an id outside the vocabulary.
  void add_document(std::span<const int32_t> tokens);
  uint64_t tokens() const { return header_.tokens; }
  uint64_t documents() const { return ends_.size(); }
  // Completes the file under its temporary name. A shard without documents is a defect (NIBBLE_CHECK).
  void finish();
  void publish();  // calls finish(), then renames the file to its name
  std::string name() const { return file_.name(); }

 private:
  void add_token(uint32_t id);
  void flush_block();

  OutputFile file_;
  ShardHeader header_;
  uint64_t offset_ = ShardHeader::bytes;
  std::vector<std::byte> block_;
  std::vector<uint64_t> ends_;
  std::vector<uint64_t> hashes_;
  bool finished_ = false;
};

// Reads one shard. Opening checks the header, the size and the table of hashes. A block of tokens is checked (hash, ids
// below the vocabulary size) when it is first touched, and so are the document ends. Failures are ExitCode::bad_data
// and name the shard, the byte and the id. A reader must not be used by several threads at once.
class ShardReader : public TokenShard {
 public:
  explicit ShardReader(const std::filesystem::path& path);
  const ShardHeader& header() const { return header_; }
  const std::string& name() const override { return name_; }
  std::string format() const override { return "nibble version 1"; }
  uint64_t tokens() const override { return header_.tokens; }
  uint32_t token_bytes() const override { return header_.token_bytes; }
  uint64_t file_bytes() const override { return header_.file_bytes(); }
  std::optional<uint64_t> documents() const override { return header_.documents; }
  uint32_t vocab_size() const override { return header_.vocab_size; }
  bool states_vocabulary() const override { return true; }
  bool knows_documents() const override { return true; }
  std::optional<uint32_t> eos_id() const override { return header_.eos_id; }
  Hash128 tokenizer() const override { return header_.tokenizer; }
  uint64_t identity() const override { return header_hash_; }
  // Returns the XXH3-64 of the header, which identifies everything in the shard.
  uint64_t header_hash() const { return header_hash_; }
  void read(uint64_t first, std::span<int32_t> ids) override;
  // Documents follow the table of document ends: the end-of-document token belongs to the document that it ends.
  void find_document_starts(uint64_t first, std::span<const int32_t> ids, std::span<int32_t> document_starts) override;
  // Returns, for every document, the index of the token after its last one.
  const std::vector<uint64_t>& document_ends();
  // Reads everything, calls report(text) for every damaged part, and returns the number of damaged parts. `visit` gets
  // the tokens of every sound block in order.
  uint64_t verify(const std::function<void(const std::string&)>& report,
                  const std::function<void(std::span<const int32_t>)>& visit);

 private:
  void check_block(uint64_t block);
  void check_document_marks();
  void decode(std::span<const std::byte> data, std::span<int32_t> ids) const;

  ShardFile file_;
  std::string name_;
  ShardHeader header_;
  uint64_t header_hash_ = 0;
  std::vector<uint64_t> hashes_;
  std::vector<bool> checked_;  // one for every block
  std::vector<uint64_t> document_ends_;
  std::vector<std::byte> buffer_;
};

// Writes consecutive shards PREFIX-00000.bin, PREFIX-00001.bin, ... of about `shard_tokens` tokens. No document is cut;
// one that is longer than a shard gets a longer shard. Each appears in the directory when it is full, the last one with
// finish().
class ShardSeries {
 public:
  ShardSeries(std::filesystem::path directory, std::string prefix, const ShardHeader& format, uint64_t shard_tokens);
  // Continues a series of the same documents that was broken off: the whole shards that are in the directory are part
  // of this one, and what remains of an unfinished one is removed. Each shard is read to its end; `visit` gets its
  // tokens. Returns how many documents, the first of the series, need not be added.
  uint64_t adopt(const std::function<void(std::span<const int32_t>)>& visit);
  void add_document(std::span<const int32_t> tokens);
  void finish();
  uint64_t tokens() const { return tokens_; }
  uint64_t documents() const { return documents_; }
  size_t shards() const { return shards_; }

 private:
  std::filesystem::path path(size_t index) const;

  std::filesystem::path directory_;
  std::string prefix_;
  ShardHeader format_;
  uint64_t shard_tokens_;
  std::unique_ptr<ShardWriter> open_;
  size_t shards_ = 0;  // the open one included
  uint64_t tokens_ = 0;
  uint64_t documents_ = 0;
};

}  // namespace nibble
