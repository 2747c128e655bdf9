#include "data/mixture.h"

#include <fmt/format.h>

#include <utility>

#include "dist/base/error.h"

namespace nibble {

Mixture::Mixture(std::vector<Part> parts, uint64_t seed) : seed_(seed), parts_(std::move(parts)) {
  NIBBLE_CHECK(!parts_.empty(), "a training set without parts");
  check_parts();
  make_order();
}

void Mixture::check_parts() const {
  const TokenShard* named = nullptr;  // a shard that names its tokenizer
  for (size_t i = 0; i < parts_.size(); ++i) {
    const Loader& part = loader(i);
    NIBBLE_CHECK(part.sequence_length() == sequence_length(), "parts of one sequence length");
    check_same_tokenizer(loader(0).shard(0), part.shard(0));
    for (size_t shard = 0; shard < part.shards(); ++shard) {
      if (part.shard(shard).tokenizer() == Hash128{}) continue;
      if (named != nullptr) check_same_tokenizer(*named, part.shard(shard));
      named = &part.shard(shard);
      break;
    }
    for (size_t other = 0; other < i; ++other) {
      const auto shared = shards_in_both(loader(other), part);
      if (shared.empty()) continue;
      throw Error(
          ExitCode::bad_config,
          fmt::format("{} shard(s) are in the parts {} and {} of data.train, first {} (in {} as {})", shared.size(),
                      name(other), name(i), shared.front().first, name(i), shared.front().second),
          "leave them out of one of the two, and give the other more weight");
    }
  }
}

void Mixture::make_order() {
  std::vector<double> weights;
  for (const Part& part : parts_) weights.push_back(part.weight);
  order_ = std::make_unique<MixtureOrder>(weights, seed_);
}

void Mixture::arrange(const std::vector<size_t>& order) {
  NIBBLE_CHECK(order.size() == parts_.size(), "a place for every part");
  std::vector<Part> arranged;
  for (const size_t part : order) arranged.push_back(std::move(parts_[part]));
  parts_ = std::move(arranged);
  make_order();
}

void Mixture::continue_at(size_t part, const DataPosition& position, uint64_t first_sample) {
  parts_[part].loader->continue_at(position, taken(part, first_sample));
}

DataPosition Mixture::position(size_t part, uint64_t sample) const {
  return loader(part).position(taken(part, sample));
}

void Mixture::load(uint64_t sample, std::span<int32_t> tokens, std::span<int32_t> targets,
                   std::span<int32_t> document_starts) {
  const size_t part = order_->part_of(sample);
  parts_[part].loader->load(taken(part, sample), tokens, targets, document_starts);
}

Hash128 Mixture::tokenizer_hash() const {
  for (const Part& part : parts_) {
    if (part.loader->tokenizer_hash() != Hash128{}) return part.loader->tokenizer_hash();
  }
  return {};
}

std::string Mixture::fingerprint() const {
  if (parts_.size() == 1) return loader(0).fingerprint();
  std::string text;
  for (size_t i = 0; i < parts_.size(); ++i) text += fmt::format("{} {}\n", share(i), loader(i).fingerprint());
  return to_hex(hash128(text));
}

}  // namespace nibble
