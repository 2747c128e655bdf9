// The interface through which training reads a file of tokens, whichever program wrote it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "dist/base/hash.h"

namespace nibble {

class TokenShard {
 public:
  virtual ~TokenShard() = default;
  virtual const std::string& name() const = 0;
  // Returns what the file is, such as "llm.c version 1 (GPT-2 tokens)".
  virtual std::string format() const = 0;
  virtual uint64_t tokens() const = 0;
  virtual uint32_t token_bytes() const = 0;
  virtual uint64_t file_bytes() const = 0;
  // Returns the number of documents, if the file has a table of them.
  virtual std::optional<uint64_t> documents() const = 0;
  virtual uint32_t vocab_size() const = 0;
  // Returns whether vocab_size() is what the file says, not what its layout or ShardOptions allow.
  virtual bool states_vocabulary() const = 0;
  // Returns whether find_document_starts() can tell documents from each other.
  virtual bool knows_documents() const = 0;
  // Returns the token that ends a document, if the format has one.
  virtual std::optional<uint32_t> eos_id() const = 0;
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

// Does what TokenShard::find_document_starts() asks for, from a table that holds, for every document in order, the
// index of the token after its last one.
void find_starts_in_table(std::span<const uint64_t> document_ends, uint64_t first, std::span<int32_t> document_starts);

// What files of tokens do not say themselves. Keys of a run's configuration have the same names.
struct ShardOptions {
  uint32_t vocab_size = 0;        // data.vocab_size: of files that do not state theirs; 0 = what their layout allows
  uint32_t model_vocab_size = 0;  // model.vocab_size: bounds what a layout allows; 0 = not known
  uint32_t token_bytes = 0;       // data.token_bytes: of files that have no header; 0 = there are none
};

// Opens a file of tokens; its first bytes decide which format it has (data/shards/shard_format.h). Throws
// ExitCode::bad_data for a damaged file and for one of another kind, which the error names, and ExitCode::bad_config
// for a file whose vocabulary must be given.
std::unique_ptr<TokenShard> open_token_shard(const std::filesystem::path& path, const ShardOptions& options = {});

}  // namespace nibble
