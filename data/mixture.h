// The training set of a run: one set of shards, or several parts that are mixed by weights. Each part is a Loader with
// epochs of its own, and MixtureOrder says which part each sample comes from.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/loader.h"
#include "data/mixture_order.h"

namespace nibble {

class Mixture : public SampleSource {
 public:
  struct Part {
    std::string name;
    double weight = 1;  // only ratios count
    std::unique_ptr<Loader> loader;
  };

  // Throws ExitCode::bad_data if parts are of different tokenizers, and ExitCode::bad_config if a shard is in two of
  // them. All parts have one sequence length.
  Mixture(std::vector<Part> parts, uint64_t seed);

  size_t parts() const { return parts_.size(); }
  const std::string& name(size_t part) const { return parts_[part].name; }
  double share(size_t part) const { return order_->share(part); }
  const Loader& loader(size_t part) const { return *parts_[part].loader; }

  // Puts part order[i] at place i. The places decide which samples come from which part, so call it before anything is
  // loaded, and before continue_at().
  void arrange(const std::vector<size_t>& order);
  // Lets the first of a part's samples from `first_sample` on be the one at this position (Loader::continue_at()).
  void continue_at(size_t part, const DataPosition& position, uint64_t first_sample);
  // Where a run that has read the samples before `sample` stands in a part.
  DataPosition position(size_t part, uint64_t sample) const;
  // Returns how many of the samples before `sample` the present weights give to a part.
  uint64_t taken(size_t part, uint64_t sample) const { return order_->taken(part, sample); }

  uint64_t sequence_length() const override { return parts_.front().loader->sequence_length(); }
  void load(uint64_t sample, std::span<int32_t> tokens, std::span<int32_t> targets,
            std::span<int32_t> document_starts = {}) override;

  uint32_t vocab_size() const { return parts_.front().loader->vocab_size(); }
  // Returns the hash of the tokenizer; all zero if no shard names it.
  Hash128 tokenizer_hash() const;
  // Returns that of the only part, or 32 digits that stand for the shares and fingerprints of all.
  std::string fingerprint() const;

 private:
  void check_parts() const;
  void make_order();

  uint64_t seed_;
  std::vector<Part> parts_;
  std::unique_ptr<MixtureOrder> order_;
};

}  // namespace nibble
