// Chooses what is held out for validation: whole documents, or the end of the longest one.
//
// Documents are chosen by their text alone, so that the split does not depend on the order, the names or the format of
// the files, and equal documents are never on both sides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace nibble {

uint64_t document_hash(std::string_view text);  // XXH3-64

enum class HeldOut : uint8_t { documents, tail };

// Call add() with every document, then settle(), then the other functions.
//
// HeldOut::documents: a document is held out if its hash is below share * 2^64. If that leaves one side empty, the
// limit moves just so far that the document with the lowest (highest) hash is held out (trained on). Where there are
// few documents (at most most_few_documents different ones), one large document may make much more than the share; if
// more than twice the share would be held out, or the larger part of the text for a share below a half, documents are
// taken in the order of their hashes as long as they stay within that bound, up to the share; if none does, the
// shortest one is.
//
// HeldOut::tail: the last share * (bytes of all documents) bytes of the longest document are held out, at most its
// half.
class DocumentSplit {
 public:
  static constexpr size_t most_few_documents = 65536;

  // Throws ExitCode::usage unless 0 <= share < 1; with 0 nothing is held out.
  explicit DocumentSplit(double validation_share, HeldOut held_out = HeldOut::documents);
  void add(uint64_t hash, uint64_t bytes);
  // Throws ExitCode::bad_data if the documents cannot be split.
  void settle();

  // Returns how many bytes from its beginning on a document is for training; the others are held out. A document whose
  // end is held out is cut near the place that the share asks for: after a paragraph, else a line, a sentence or a
  // word.
  size_t training_bytes(uint64_t hash, std::string_view text) const;
  // Returns whether the first `end` bytes of a document are certainly for training.
  bool is_training(uint64_t hash, uint64_t end) const;

  uint64_t documents() const { return documents_; }
  // Returns the share of the text that is held out, by bytes; of a tail before its cut is moved to a boundary.
  double held_out_share() const;

 private:
  struct Total {
    uint64_t hash = 0;
    uint64_t bytes = 0;  // of all documents with this hash
  };
  void settle_documents();
  void settle_tail();
  void choose_few(double most_bytes);
  bool is_chosen(uint64_t hash) const { return chosen_.empty() ? hash < limit_ : chosen_.contains(hash); }

  double share_;
  HeldOut held_out_;
  uint64_t limit_ = 0;
  uint64_t documents_ = 0;
  uint64_t bytes_ = 0;
  uint64_t held_out_bytes_ = 0;
  Total lowest_{UINT64_MAX, 0};
  Total highest_;
  std::unordered_map<uint64_t, uint64_t> few_;  // bytes by hash; empty once there are too many
  bool many_ = false;
  std::unordered_set<uint64_t> chosen_;  // the documents held out, where the limit does not say
  Total longest_;                        // bytes of one document
  uint64_t longest_copies_ = 0;
  uint64_t tail_bytes_ = 0;
};

}  // namespace nibble
