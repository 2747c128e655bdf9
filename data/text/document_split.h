// Chooses what is held out for validation: whole documents, or the end of the longest one.
//
// Documents are chosen by their text alone, so that the split does not depend on the order, the names or the format of
// the files, and equal documents are never on both sides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

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

  // What settle() has decided.
  struct Decision {
    HeldOut held_out = HeldOut::documents;
    uint64_t limit = 0;                 // documents with a smaller hash are held out, unless some are chosen
    std::vector<uint64_t> chosen = {};  // hashes of the documents that are held out, in ascending order
    uint64_t tail_bytes = 0;            // held out of every document with this hash
    uint64_t longest_hash = 0;
    uint64_t longest_bytes = 0;
    uint64_t documents = 0;  // all
    uint64_t bytes = 0;      // of all documents
    uint64_t held_out_bytes = 0;
  };

  // Throws ExitCode::usage unless 0 <= share < 1; with 0 nothing is held out.
  explicit DocumentSplit(double validation_share, HeldOut held_out = HeldOut::documents);
  // A split that has been settled.
  explicit DocumentSplit(Decision decision) : decision_(std::move(decision)) {}
  const Decision& decision() const { return decision_; }
  void add(uint64_t hash, uint64_t bytes);
  // Throws ExitCode::bad_data if the documents cannot be split.
  void settle();

  // Returns how many bytes from its beginning on a document is for training; the others are held out. A document whose
  // end is held out is cut near the place that the share asks for: after a paragraph, else a line, a sentence or a
  // word.
  size_t training_bytes(uint64_t hash, std::string_view text) const;
  // Returns whether the first `end` bytes of a document are certainly for training.
  bool is_training(uint64_t hash, uint64_t end) const;

  uint64_t documents() const { return decision_.documents; }
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
  bool is_chosen(uint64_t hash) const;

  double share_ = 0;
  Decision decision_;
  Total lowest_{UINT64_MAX, 0};
  Total highest_;
  std::unordered_map<uint64_t, uint64_t> few_;  // bytes by hash; empty once there are too many
  bool many_ = false;
  uint64_t longest_copies_ = 0;
};

}  // namespace nibble
