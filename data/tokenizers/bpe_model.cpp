#include "data/tokenizers/bpe_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <queue>
#include <utility>

#include "data/patterns/code_point.h"
#include "dist/base/error.h"
#include "dist/base/hash.h"

namespace nibble {
namespace {

constexpr size_t short_word = 48;  // symbols; above, a queue is faster than looking at all pairs again
constexpr size_t cached_words = size_t{1} << 15U;
constexpr uint32_t no_rank = UINT32_MAX;

}  // namespace

MergeTable::MergeTable(size_t merges)
    : slots_(std::bit_ceil(std::max<size_t>(16, 2 * merges))),
      mask_(slots_.size() - 1),
      shift_(64U - static_cast<unsigned>(std::countr_zero(slots_.size()))) {}

void MergeTable::insert(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = key_of(left, right);
  size_t slot = slot_of(key);
  while (slots_[slot].key != empty && slots_[slot].key != key) slot = (slot + 1) & mask_;
  slots_[slot] = {key, merge};
}

struct BpeScratch {
  // A word and its ids. One that does not fit is encoded each time.
  struct CachedWord {
    uint64_t hash = 0;
    uint8_t size = 0;  // bytes; 0 = none
    uint8_t count = 0;
    char text[46];
    int32_t ids[18];
  };
  struct Node {
    int32_t id;
    int32_t next, previous;  // -1 = none
  };
  struct Candidate {
    uint32_t rank;
    int32_t node;
    int32_t id;  // of the merge
    bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : node > other.node; }
  };

  std::vector<CachedWord> cache{cached_words};
  std::vector<int32_t> symbols;
  std::vector<MergeTable::Merge> merges;  // of each symbol with the next
  std::vector<Node> nodes;
  std::vector<Candidate> heap;
};

BpeModel::BpeModel(TokenIds ids, MergeTable merges, const Options& options)
    : ids_(std::move(ids)), merges_(std::move(merges)), options_(options), byte_symbols_(256, -1) {
  for (unsigned byte = 0; byte < 256; ++byte) {
    const std::string token =
        options_.symbols == Symbols::bytes ? std::string(1, static_cast<char>(byte)) : fmt::format("<0x{:02X}>", byte);
    const auto found = ids_.find(token);
    if (found != ids_.end()) byte_symbols_[byte] = found->second;
  }
  can_fall_back_ = options_.symbols == Symbols::characters && options_.byte_fallback;
}

bool BpeModel::covers_every_text() const {
  return (options_.symbols == Symbols::bytes || can_fall_back_) &&
         std::find(byte_symbols_.begin(), byte_symbols_.end(), -1) == byte_symbols_.end();
}

std::shared_ptr<BpeScratch> BpeModel::make_scratch() const {
  return std::make_shared<BpeScratch>();
}

// Unknown symbols wait until the next known one, as in Hugging Face's library.
void BpeModel::append_symbols(std::string_view word, std::vector<int32_t>& symbols) const {
  size_t unknown = 0;  // waiting
  const auto flush = [&] {
    if (unknown > 0) symbols.push_back(options_.unknown_id);
    unknown = 0;
  };
  const auto add_unknown = [&] {
    if (options_.unknown_id < 0) return;
    if (!options_.fuse_unknown) flush();
    ++unknown;
  };
  if (options_.symbols == Symbols::bytes) {
    for (const char byte : word) {
      const int32_t id = byte_symbol(static_cast<unsigned char>(byte));
      if (id < 0) {
        add_unknown();
        continue;
      }
      flush();
      symbols.push_back(id);
    }
    return flush();
  }
  for (size_t at = 0, size = 0; at < word.size(); at += size) {
    size = code_point_size(word[at]);
    const std::string_view character = word.substr(at, size);
    if (const auto found = ids_.find(character); found != ids_.end()) {
      flush();
      symbols.push_back(found->second);
      continue;
    }
    const bool has_bytes = can_fall_back_ && std::all_of(character.begin(), character.end(), [&](char byte) {
                             return byte_symbol(static_cast<unsigned char>(byte)) >= 0;
                           });
    if (!has_bytes) {
      add_unknown();
      continue;
    }
    for (const char byte : character) symbols.push_back(byte_symbol(static_cast<unsigned char>(byte)));
  }
  flush();
}

void BpeModel::merge_short(BpeScratch& scratch) const {
  std::vector<int32_t>& symbols = scratch.symbols;
  std::vector<MergeTable::Merge>& merges = scratch.merges;
  const auto merge_at = [&](size_t i) -> MergeTable::Merge {
    if (i + 1 >= symbols.size()) return {no_rank, -1};
    const MergeTable::Merge* const merge = merges_.find(symbols[i], symbols[i + 1]);
    return merge != nullptr ? *merge : MergeTable::Merge{no_rank, -1};
  };
  merges.clear();
  for (size_t i = 0; i < symbols.size(); ++i) merges.push_back(merge_at(i));
  while (symbols.size() > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < symbols.size(); ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].id < 0) break;
    symbols[best] = merges[best].id;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    merges.erase(merges.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    merges[best] = merge_at(best);
    if (best > 0) merges[best - 1] = merge_at(best - 1);
  }
}

// The same with a linked list of symbols and a queue of merges: n symbols take O(n log n).
void BpeModel::merge_long(BpeScratch& scratch) const {
  using Node = BpeScratch::Node;
  std::vector<int32_t>& symbols = scratch.symbols;
  std::vector<Node>& nodes = scratch.nodes;
  const auto count = narrow<int32_t>(symbols.size());
  nodes.resize(symbols.size());
  for (int32_t i = 0; i < count; ++i) {
    nodes[static_cast<size_t>(i)] = {symbols[static_cast<size_t>(i)], i + 1 < count ? i + 1 : -1, i - 1};
  }
  const auto at = [&](int32_t i) -> Node& { return nodes[static_cast<size_t>(i)]; };
  std::vector<BpeScratch::Candidate>& heap = scratch.heap;
  heap.clear();
  const auto candidate = [&](int32_t node) -> const MergeTable::Merge* {
    return at(node).next < 0 ? nullptr : merges_.find(at(node).id, at(at(node).next).id);
  };
  for (int32_t i = 0; i + 1 < count; ++i) {
    if (const auto* merge = candidate(i)) heap.push_back({merge->rank, i, merge->id});
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto offer = [&](int32_t node) {
    const auto* const merge = candidate(node);
    if (merge == nullptr) return;
    heap.push_back({merge->rank, node, merge->id});
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    const auto top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    Node& left = at(top.node);
    if (left.id < 0) continue;  // merged into its left neighbour
    const auto* const merge = candidate(top.node);
    if (merge == nullptr || merge->id != top.id || merge->rank != top.rank) continue;  // a neighbour has changed
    Node& right = at(left.next);
    left.id = top.id;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) at(left.next).previous = top.node;
    offer(top.node);
    if (left.previous >= 0) offer(left.previous);
  }
  symbols.clear();
  for (int32_t i = 0; i >= 0; i = at(i).next) symbols.push_back(at(i).id);
  constexpr size_t kept = size_t{1} << 20U;
  if (nodes.capacity() > kept) std::vector<Node>().swap(nodes);
  if (heap.capacity() > kept) std::vector<BpeScratch::Candidate>().swap(heap);
}

void BpeModel::encode(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  if (word.empty()) return;
  using CachedWord = BpeScratch::CachedWord;
  const bool is_cacheable = word.size() <= sizeof(CachedWord::text);
  CachedWord* cached = nullptr;
  uint64_t hash = 0;
  if (is_cacheable) {
    hash = hash64(word);
    cached = &scratch.cache[hash % cached_words];
    if (cached->hash == hash && cached->size == word.size() &&
        std::memcmp(cached->text, word.data(), word.size()) == 0) {
      ids.insert(ids.end(), cached->ids, cached->ids + cached->count);
      return;
    }
  }
  std::vector<int32_t>& symbols = scratch.symbols;
  symbols.clear();
  const auto whole = options_.whole_words ? ids_.find(word) : ids_.end();
  if (whole != ids_.end()) {
    symbols.push_back(whole->second);
  } else {
    append_symbols(word, symbols);
    if (symbols.size() > short_word) {
      merge_long(scratch);
    } else {
      merge_short(scratch);
    }
  }
  ids.insert(ids.end(), symbols.begin(), symbols.end());
  if (is_cacheable && symbols.size() <= std::size(cached->ids)) {
    cached->hash = hash;
    cached->size = static_cast<uint8_t>(word.size());
    cached->count = static_cast<uint8_t>(symbols.size());
    std::memcpy(cached->text, word.data(), word.size());
    std::copy(symbols.begin(), symbols.end(), cached->ids);
  }
}

}  // namespace nibble
