#include "trainer/run/micro_batch.h"
#include "dist/device/profile.h"

namespace nibble {

MicroBatch::MicroBatch(int64_t micro_batch_sequences, int64_t sequence_length, bool document_mask)
    : sequence_length_(sequence_length),
      tokens_(static_cast<size_t>(micro_batch_sequences * sequence_length)),
      targets_(tokens_.size()),
      document_starts_(document_mask ? tokens_.size() : 0) {}

void MicroBatch::load(Loader& loader, uint64_t first, int64_t sequences) {
  const ProfileScope scope(OperatorFamily::data, "load_micro_batch");
  const auto length = static_cast<size_t>(sequence_length_);
  NIBBLE_CHECK(static_cast<size_t>(sequences) * length <= tokens_.size(), "more sequences than the micro-batch holds");
  sequences_ = sequences;
  for (size_t i = 0; i < static_cast<size_t>(sequences); ++i) {
    const std::span<int32_t> document_starts(document_starts_);
    loader.load(first + i, {tokens_.data() + i * length, length}, {targets_.data() + i * length, length},
                document_starts.empty() ? document_starts : document_starts.subspan(i * length, length));
  }
}

}  // namespace nibble
