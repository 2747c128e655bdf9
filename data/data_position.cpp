#include "data/data_position.h"

#include "dist/base/error.h"

namespace nibble {
namespace {

// Windows inside shards leave rests at the end of every shard, which windows of another length would cut in another
// way.
bool epoch_goes_on(const DataPosition& position, uint64_t length) {
  const uint64_t last = position.lengths.back();
  return length == last || (last % length == 0 && (position.across_shards || position.shards.size() == 1));
}

}  // namespace

DataPosition with_length(DataPosition position, uint64_t length) {
  NIBBLE_CHECK(!position.lengths.empty() && length > 0, "a position has a sequence length");
  const uint64_t last = position.lengths.back();
  if (length == last) return position;
  if (epoch_goes_on(position, length)) {
    position.taken *= last / length;
    position.across_shards = true;  // the same for one shard
    position.lengths.push_back(length);
    return position;
  }
  return {.shards = std::move(position.shards), .epoch = position.epoch + 1, .lengths = {length}};
}

uint64_t tokens_read_again(const DataPosition& position, uint64_t length) {
  return epoch_goes_on(position, length) ? 0 : position.taken * position.lengths.back();
}

}  // namespace nibble
