#include "trainer/memory/weight_gather.h"

#include <fmt/format.h>

#include "dist/device/profile.h"

namespace nibble {
namespace {

std::span<std::byte> bytes_of(const Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data()), tensor.bytes()};
}

}  // namespace

WeightGather::WeightGather(WeightFormat format, SharedArena& memory, const Placement& owned, int rank)
    : format_(format), memory_(memory), elements_(owned.layout().elements()) {
  const std::vector<uint64_t> bounds = boundaries(owned);
  own_ = {bounds[static_cast<size_t>(rank)], bounds[static_cast<size_t>(rank) + 1]};
  if (format == WeightFormat::bf16) {
    for (const uint64_t bound : bounds) offsets_.push_back(owned.layout().weight_byte(bound));
    return;
  }
  codec_.emplace(memory.arena(), format, owned.layout());
  packed_ = allocate_tensor(memory.arena(), DType::u8, {narrow<int64_t>(codec_->packed_bytes())});
  for (const uint64_t bound : bounds) offsets_.push_back(codec_->offset(bound));
}

void WeightGather::gather(const Tensor& weights) {
  const ProfileScope scope(OperatorFamily::reduction, "gather_weights");
  if (!codec_) {
    memory_.all_gather(bytes_of(weights), offsets_);
    return;
  }
  codec_->pack(weights, own_.begin, own_.end, packed_);
  memory_.all_gather(bytes_of(packed_), offsets_);
  codec_->unpack(packed_, weights);
}

std::string WeightGather::describe() const {
  if (!codec_) return "";
  const double bits = 8 * static_cast<double>(codec_->packed_bytes()) / static_cast<double>(elements_);
  return fmt::format("{}, {:.2f} bits a weight", name_of(format_), bits);
}

}  // namespace nibble
