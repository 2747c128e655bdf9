// A bounded sample of lines to train a tokenizer on. The hashes of the lines alone decide which are kept, so the sample
// is spread over all documents and is the same for the same text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/document_split.h"

namespace nibble {

class SentenceSample {
 public:
  explicit SentenceSample(uint64_t max_bytes) : max_bytes_(max_bytes) {}
  // Offers the lines of a document; lines above 4 KiB are cut.
  void add(std::string_view document, uint64_t document_hash);
  uint64_t bytes() const { return bytes_; }
  // Returns the lines of the text that is for training in the order in which they came, without their line feeds, and
  // empties the sample.
  std::vector<std::string> take(const DocumentSplit& split);

 private:
  struct Sentence {
    uint64_t hash;
    uint64_t document;  // hash
    uint64_t end;       // bytes of the document up to here
    std::string text;
  };
  void offer(std::string_view text, uint64_t document, uint64_t index, uint64_t end);
  void halve();

  uint64_t max_bytes_;
  uint64_t bytes_ = 0;
  uint64_t limit_ = UINT64_MAX;  // lines with a larger hash are left out
  std::vector<Sentence> sentences_;
};

}  // namespace nibble
