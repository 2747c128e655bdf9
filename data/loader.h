// Windows of tokens for training. The loader opens shards and returns sample k, for any k, in the sampler's order.
//
// The shards are one stream of tokens, in order. A window is sequence_length + 1 consecutive tokens of it, and windows
// start every sequence_length tokens, so every token but the first is a target exactly once in an epoch, except for a
// rest at the end that is too short. A window may go on from one shard into the next; a document ends with its shard.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/data_position.h"
#include "data/sampler.h"
#include "data/shards/token_shard.h"
#include "dist/base/hash.h"

namespace nibble {

// Where windows lie. Older versions cut every shard for itself and left out what remained at its end.
enum class WindowRule : uint8_t { across_shards, inside_shards };

// Where samples come from. Only one thread at a time may be in load(); other functions may be called meanwhile.
class SampleSource {
 public:
  virtual ~SampleSource() = default;
  virtual uint64_t sequence_length() const = 0;
  // Loads sample number `sample`: tokens[i] is followed by targets[i]. Both spans have sequence_length elements. So has
  // `document_starts`, unless it is empty: document_starts[i] is the index of the first of these tokens that is in
  // token i's document, as TokenShard::find_document_starts() returns it.
  virtual void load(uint64_t sample, std::span<int32_t> tokens, std::span<int32_t> targets,
                    std::span<int32_t> document_starts) = 0;
};

class Loader : public SampleSource {
 public:
  // Without `shuffle`, sample k is window k modulo windows(). Throws ExitCode::bad_data for a damaged shard, for shards
  // of different tokenizers, and if there is no whole window.
  Loader(const std::vector<std::string>& patterns, uint64_t sequence_length, uint64_t seed, bool shuffle,
         const ShardOptions& options = {});

  // Returns whether these are the shards of `position`, in whatever order and under whatever names; false if the
  // position does not know its shards.
  bool has_shards_of(const DataPosition& position) const;
  // Lets sample `first_sample` be the one at this position, which is of this data set and of this sequence length; the
  // shards are put in the position's order, if it knows them. Call it before anything is loaded.
  void continue_at(const DataPosition& position, uint64_t first_sample);
  // Returns where a run stands that has read the samples before `sample`.
  DataPosition position(uint64_t sample) const;

  uint64_t windows() const { return sampler_.windows(); }    // of an epoch
  uint64_t tokens() const { return tokens_before_.back(); }  // in all shards
  uint64_t tokens_in_no_window() const;
  uint64_t sequence_length() const override { return sequence_length_; }
  size_t shards() const { return shards_.size(); }
  const TokenShard& shard(size_t index) const { return *shards_[index]; }

  void load(uint64_t sample, std::span<int32_t> tokens, std::span<int32_t> targets,
            std::span<int32_t> document_starts = {}) override;

  uint32_t vocab_size() const { return shards_.front()->vocab_size(); }
  // Returns the hash of the tokenizer; all zero if no shard names it.
  Hash128 tokenizer_hash() const;
  // Returns 32 hexadecimal digits: a hash over the shards in order, of their sizes and identities. Equal fingerprints,
  // positions, seeds and sequence lengths mean equal samples.
  std::string fingerprint() const;
  // The fingerprint of older versions, which also hashes the files' names without their folders.
  std::string fingerprint_with_names() const;

 private:
  uint64_t count_windows();
  uint64_t windows_of(uint64_t length) const;
  uint64_t window_of(uint64_t sample) const;
  uint64_t window_of_started_epoch(size_t level, uint64_t index) const;
  uint64_t first_token_of(uint64_t window) const;
  void order_as(const std::vector<uint64_t>& identities);
  void read(uint64_t first_token, std::span<int32_t> document_starts);

  uint64_t sequence_length_;
  uint64_t seed_;
  bool shuffle_;
  WindowRule rule_ = WindowRule::across_shards;
  std::vector<std::unique_ptr<TokenShard>> shards_;
  std::vector<uint64_t> tokens_before_;   // tokens in the shards before each shard, and in all
  std::vector<uint64_t> windows_before_;  // the same for windows; WindowRule::inside_shards only
  std::vector<int32_t> window_;           // [sequence_length + 1]
  Sampler sampler_;
  // The epoch in which the samples of this loader begin, and the number of the first of them.
  DataPosition start_;
  uint64_t first_sample_ = 0;
  Sampler started_;  // of the first of start_.lengths
};

// Returns pairs of names of shards with the same content, one of each loader: the same file, a link or a copy.
std::vector<std::pair<std::string, std::string>> shards_in_both(const Loader& a, const Loader& b);
// Throws ExitCode::bad_data if two shards are of different tokenizers: of other vocabularies, or of tokenizers with
// other hashes or other tokens at the end of a document, where both say them.
void check_same_tokenizer(const TokenShard& a, const TokenShard& b);
// Returns how many shards have the content of another one before them.
size_t repeated_shards(const Loader& loader);

}  // namespace nibble
