// Where a run stands in a data set: what a checkpoint keeps of it, so that the run can go on with another batch,
// another sequence length, or with its shards under other names, and no window is read twice or left out.
#pragma once

#include <cstdint>
#include <vector>

namespace nibble {

struct DataPosition {
  std::vector<uint64_t> shards = {};  // identities (TokenShard::identity()) in the order of reading; empty: not known
  bool across_shards = true;          // see WindowRule; false: inside_shards
  uint64_t epoch = 0;
  uint64_t taken = 0;  // windows of this epoch that have been read, counted in windows of the last length
  // The sequence lengths with which this epoch has been read, the present one last. Each is a multiple of the next.
  std::vector<uint64_t> lengths = {};
};

// Returns the position from which a run goes on with sequences of `length` tokens. Where the last length is a multiple
// of it, the epoch goes on, and each window that has not been read becomes several. Otherwise the next epoch begins,
// and tokens_read_again() says what that costs.
DataPosition with_length(DataPosition position, uint64_t length);
// Returns how many tokens of the epoch have been read that with_length(position, length) will return once more before
// the rest of the epoch has been read.
uint64_t tokens_read_again(const DataPosition& position, uint64_t length);

}  // namespace nibble
