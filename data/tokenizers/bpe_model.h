// Byte-pair encoding of single words.
//
// A word begins as one symbol a byte (byte-level vocabularies) or one a character (the others), and the pair of
// neighbours whose merge has the lowest rank, of several the leftmost, is merged until no pair has a merge. The result
// is that of Hugging Face's library and of tiktoken, which do the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nibble {

// A hash table from pairs of ids to what they merge into. Open addressing; it never shrinks.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  explicit MergeTable(size_t merges);
  // A later merge of the same pair replaces an earlier one.
  void insert(int32_t left, int32_t right, Merge merge);
  const Merge* find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t slot = slot_of(key);; slot = (slot + 1) & mask_) {
      if (slots_[slot].key == key) return &slots_[slot].merge;
      if (slots_[slot].key == empty) return nullptr;
    }
  }

 private:
  static constexpr uint64_t empty = UINT64_MAX;
  struct Slot {
    uint64_t key = empty;
    Merge merge{};
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32U | static_cast<uint32_t>(right);
  }
  size_t slot_of(uint64_t key) const { return (key * 0x9E3779B97F4A7C15U) >> shift_; }

  std::vector<Slot> slots_;
  size_t mask_;
  unsigned shift_;
};

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using TokenIds = std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>>;

// Working memory of one thread, with the ids of words that it met. The memory is bounded, but for one very long word.
struct BpeScratch;

class BpeModel {
 public:
  enum class Symbols { bytes, characters };
  struct Options {
    Symbols symbols = Symbols::bytes;
    bool whole_words = false;    // a word that is a token becomes that token, whatever the merges say
    bool byte_fallback = false;  // of characters: one outside the vocabulary becomes its bytes, <0x00> ... <0xFF>
    bool fuse_unknown = false;   // unknown symbols in a row become one token
    int32_t unknown_id = -1;     // -1: unknown symbols are left out
  };
  // `ids` has the vocabulary: bytes or characters to ids.
  BpeModel(TokenIds ids, MergeTable merges, const Options& options);

  void encode(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const;
  std::shared_ptr<BpeScratch> make_scratch() const;

  const TokenIds& ids() const { return ids_; }
  const Options& options() const { return options_; }
  // Whether every text has symbols, none of them unknown.
  bool covers_every_text() const;

 private:
  void append_symbols(std::string_view word, std::vector<int32_t>& symbols) const;
  void merge_short(BpeScratch& scratch) const;
  void merge_long(BpeScratch& scratch) const;
  int32_t byte_symbol(unsigned char byte) const { return byte_symbols_[byte]; }

  TokenIds ids_;
  MergeTable merges_;
  Options options_;
  std::vector<int32_t> byte_symbols_;  // 256: of the bytes, or of <0x00> ...; -1 where there is none
  bool can_fall_back_ = false;         // to bytes
};

}  // namespace nibble
