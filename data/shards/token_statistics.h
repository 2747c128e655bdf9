// Counts how often every token occurs, and computes the entropy of that distribution. The entropy is the loss of a
// model that knows the frequencies and nothing else: the first mark that a training run has to pass.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace nibble {

class TokenStatistics {
 public:
  explicit TokenStatistics(uint32_t vocab_size) : counts_(vocab_size) {}
  // Counts these tokens; every id is below the vocabulary size.
  void add(std::span<const int32_t> ids);
  void add(uint32_t id, uint64_t count) { counts_[id] += count; }
  uint64_t total() const;
  uint32_t used() const;        // number of different tokens that occur
  double entropy_nats() const;  // nats a token
  double entropy_bits() const;

 private:
  std::vector<uint64_t> counts_;
};

}  // namespace nibble
