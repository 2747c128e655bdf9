// The second pass of nibble tokenize: encodes documents and writes each to its side of the split.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/shards/shard.h"
#include "data/shards/token_statistics.h"
#include "data/text/document_split.h"
#include "data/text/text_reader.h"
#include "data/tokenizers/tokenizer.h"

namespace nibble {

class TokenizeEncoder {
 public:
  // Whole shards that the same job left in the folder when it was stopped are kept, and their documents are not encoded
  // again.
  TokenizeEncoder(const std::filesystem::path& folder, uint64_t shard_tokens, const Tokenizer& tokenizer,
                  const DocumentSplit& split);

  // Takes all documents in order, from the first on.
  void add(std::span<const Document> documents);
  void finish();
  // Returns lines of the form "name   value".
  std::string summary() const;

 private:
  enum Side : uint8_t { train, validation };
  struct Series {
    ShardSeries shards;
    uint64_t adopted = 0;  // documents, the first ones, that need no encoding
    uint64_t seen = 0;     // documents
  };
  void add_part(Side side, std::string_view text);

  const Tokenizer& tokenizer_;
  const DocumentSplit& split_;
  TokenStatistics statistics_;  // of the training tokens
  std::array<Series, 2> series_;
  std::vector<std::string> pending_;  // documents, or the two parts of one
  std::vector<Side> sides_;           // of each of them
  uint64_t bytes_ = 0;
};

}  // namespace nibble
