#include "trainer/run/weight_gather.h"

#include <fmt/format.h>

#include "dist/device/profile.h"

namespace nibble {
namespace {

std::span<std::byte> bytes_of(const Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data()), tensor.bytes()};
}

}  // namespace

WeightGather::WeightGather(WeightFormat format, SharedArena& memory, const Partition& partition, int rank,
                           std::span<const ParameterSegment> segments)
    : format_(format), memory_(memory), partition_(partition), rank_(rank) {
  if (format == WeightFormat::bf16) return;
  codec_.emplace(memory.arena(), format, segments, partition.elements());
  packed_ = allocate_tensor(memory.arena(), DType::u8, {narrow<int64_t>(codec_->packed_bytes())});
  for (int owner = 0; owner < partition.ranks(); ++owner) {
    packed_offsets_.push_back(codec_->offset(partition.begin(owner)));
  }
  packed_offsets_.push_back(codec_->packed_bytes());
}

void WeightGather::gather(const Tensor& weights) {
  const ProfileScope scope(OperatorFamily::reduction, "gather_weights");
  if (!codec_) {
    const std::vector<uint64_t> offsets = partition_.byte_offsets(size_of(weights.dtype()));
    memory_.all_gather(bytes_of(weights), offsets);
    return;
  }
  codec_->pack(weights, partition_.begin(rank_), partition_.end(rank_), packed_);
  memory_.all_gather(bytes_of(packed_), packed_offsets_);
  codec_->unpack(packed_, weights);
}

std::string WeightGather::describe() const {
  if (!codec_) return "";
  const double bits = 8 * static_cast<double>(codec_->packed_bytes()) / static_cast<double>(partition_.elements());
  return fmt::format("{}, {:.2f} bits a weight", name_of(format_), bits);
}

}  // namespace nibble
