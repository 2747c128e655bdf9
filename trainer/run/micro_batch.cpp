#include "trainer/run/micro_batch.h"

#include <numeric>
#include <utility>
#include <vector>

#include "dist/device/profile.h"

namespace nibble {
namespace {

size_t bytes_of(const MicroBatchShape& shape) {
  const int64_t parts = shape.document_mask ? 3 : 2;
  return static_cast<size_t>(parts * shape.sequences * shape.sequence_length) * sizeof(int32_t);
}

}  // namespace

MicroBatchShape micro_batch_shape(const RunConfig& config) {
  return {.sequences = config.train.micro_batch_sequences,
          .sequence_length = config.model.sequence_length,
          .document_mask = config.data.document_mask};
}

MicroBatch::MicroBatch(const MicroBatchShape& shape, DeviceKind device)
    : shape_(shape), memory_(device, bytes_of(shape)) {}

Tensor MicroBatch::part(int64_t index) const {
  auto* const begin = static_cast<int32_t*>(memory_.data()) + index * shape_.sequences * shape_.sequence_length;
  return {begin, DType::i32, {sequences_, shape_.sequence_length}};
}

std::span<int32_t> MicroBatch::sequence(int64_t part, int64_t index) const {
  auto* const begin = static_cast<int32_t*>(memory_.data());
  const int64_t length = shape_.sequence_length;
  return {begin + (part * shape_.sequences + index) * length, static_cast<size_t>(length)};
}

void MicroBatch::load(SampleSource& source, std::span<const uint64_t> samples) {
  const ProfileScope scope(OperatorFamily::data, "load_micro_batch");
  sequences_ = static_cast<int64_t>(samples.size());
  NIBBLE_CHECK(sequences_ <= shape_.sequences, "more sequences than the micro-batch holds");
  for (int64_t i = 0; i < sequences_; ++i) {
    source.load(samples[static_cast<size_t>(i)], sequence(0, i), sequence(1, i),
                shape_.document_mask ? sequence(2, i) : std::span<int32_t>());
  }
}

void MicroBatch::load(SampleSource& source, uint64_t first, int64_t sequences) {
  std::vector<uint64_t> samples(static_cast<size_t>(sequences));
  std::iota(samples.begin(), samples.end(), first);
  load(source, samples);
}

MicroBatchQueue::MicroBatchQueue(SampleSource& source, const MicroBatchShape& shape, DeviceKind device, bool ahead)
    : source_(source), sequences_(shape.sequences), current_(std::make_unique<MicroBatch>(shape, device)) {
  if (ahead) next_ = std::make_unique<MicroBatch>(shape, device);
}

MicroBatch& MicroBatchQueue::get(uint64_t first, std::optional<uint64_t> next) {
  if (loading_.valid() && first_of_next_ == first) {
    const ProfileScope scope(OperatorFamily::data, "wait_for_micro_batch");
    loading_.get();
    std::swap(current_, next_);
  } else {
    loading_ = {};  // waits for the thread and forgets its error, if there was one
    current_->wait_until_copied();
    current_->load(source_, first, sequences_);
  }
  if (next_ != nullptr && next) load_ahead(*next);
  return *current_;
}

void MicroBatchQueue::load_ahead(uint64_t first) {
  next_->wait_until_copied();
  first_of_next_ = first;
  loading_ = std::async(std::launch::async, [this, first] { next_->load(source_, first, sequences_); });
}

}  // namespace nibble
