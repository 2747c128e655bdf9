// Chooses the documents that are held out for validation. The choice is a pure function of the document's text, so that
// the split does not depend on the order, the names or the format of the files, and equal documents are never on both
// sides.
#pragma once

#include <cstdint>
#include <string_view>

namespace nibble {

uint64_t document_hash(std::string_view text);  // XXH3-64

// Call add() with every document's hash, then settle(), then is_validation(). A document is validation if its hash is
// below share * 2^64. If that leaves one side empty, the limit moves just so far that the document with the lowest
// (highest) hash is validation (training).
class DocumentSplit {
 public:
  // Requires 0 <= share < 1; with 0 there is no validation side.
  explicit DocumentSplit(double validation_share);
  void add(uint64_t hash);
  // Throws ExitCode::bad_data if there are too few different documents to fill both sides.
  void settle();
  bool is_validation(uint64_t hash) const { return hash < limit_; }
  uint64_t documents() const { return documents_; }

 private:
  uint64_t limit_ = 0;
  uint64_t lowest_ = UINT64_MAX;
  uint64_t highest_ = 0;
  uint64_t documents_ = 0;
};

}  // namespace nibble
