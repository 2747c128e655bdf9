// Windows of tokens for training. The loader opens shards and returns sample k, for any k, in the sampler's order.
//
// A window is sequence_length + 1 consecutive tokens of one shard. Windows start every sequence_length tokens, so every
// token but a shard's first is a target exactly once, except for a rest at the end of the shard that is too short.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/sampler.h"
#include "data/shards/token_shard.h"
#include "dist/base/hash.h"

namespace nibble {

// Only one thread at a time may be in load(); the other functions may be called meanwhile.
class Loader {
 public:
  // Without `shuffle`, sample k is window k modulo windows(). Throws ExitCode::bad_data for a damaged shard, for shards
  // of different tokenizers, and if no shard holds a window.
  Loader(const std::vector<std::string>& patterns, uint64_t sequence_length, uint64_t seed, bool shuffle);

  uint64_t windows() const { return sampler_.windows(); }
  uint64_t tokens() const { return tokens_; }  // in all shards
  uint64_t epoch(uint64_t sample) const { return sampler_.epoch(sample); }
  uint64_t sequence_length() const { return sequence_length_; }
  size_t shards() const { return shards_.size(); }

  // Loads sample number `sample`: tokens[i] is followed by targets[i]. Both spans have sequence_length elements. So has
  // `document_starts`, unless it is empty: document_starts[i] is the index of the first of these tokens that is in
  // token i's document, as TokenShard::find_document_starts() returns it.
  void load(uint64_t sample, std::span<int32_t> tokens, std::span<int32_t> targets,
            std::span<int32_t> document_starts = {});

  uint32_t vocab_size() const { return shards_.front()->vocab_size(); }
  Hash128 tokenizer_hash() const { return shards_.front()->tokenizer(); }
  // Returns 32 hexadecimal digits: a hash over the shards in order, of their file names without folders, sizes and
  // identities. Equal fingerprints, seeds and sequence lengths mean equal samples.
  std::string fingerprint() const;

 private:
  uint64_t count_windows();

  uint64_t sequence_length_;
  std::vector<std::unique_ptr<TokenShard>> shards_;
  std::vector<uint64_t> first_window_;  // first window of every shard, and the total
  uint64_t tokens_ = 0;
  std::vector<int32_t> window_;  // [sequence_length + 1]
  Sampler sampler_;
};

}  // namespace nibble
