#include "data/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "data/shards/shard_pattern.h"
#include "dist/base/error.h"

namespace nibble {
namespace {

std::vector<std::unique_ptr<TokenShard>> open_shards(const std::vector<std::string>& patterns) {
  std::vector<std::unique_ptr<TokenShard>> shards;
  for (const std::string& path : expand_patterns(patterns)) {
    shards.push_back(open_token_shard(path));
    const TokenShard& first = *shards.front();
    const TokenShard& last = *shards.back();
    if (last.vocab_size() != first.vocab_size() || last.tokenizer() != first.tokenizer() ||
        last.eos_id() != first.eos_id()) {
      throw Error(ExitCode::bad_data,
                  fmt::format("{} and {} were made with different tokenizers (vocabulary {} and {}, hash {} and {})",
                              first.name(), path, first.vocab_size(), last.vocab_size(), to_hex(first.tokenizer()),
                              to_hex(last.tokenizer())),
                  "train on shards of one tokenizer; nibble tokenize --tokenizer reuses one");
    }
  }
  return shards;
}

}  // namespace

Loader::Loader(const std::vector<std::string>& patterns, uint64_t sequence_length, uint64_t seed, bool shuffle)
    : sequence_length_(sequence_length),
      shards_(open_shards(patterns)),
      window_(sequence_length + 1),
      sampler_(count_windows(), seed, shuffle) {}

uint64_t Loader::count_windows() {
  NIBBLE_CHECK(sequence_length_ >= 1 && sequence_length_ < (1ULL << 32U), "sequence length");
  uint64_t longest = 0;
  first_window_.push_back(0);
  for (const auto& shard : shards_) {
    const uint64_t count = shard->tokens();
    longest = std::max(longest, count);
    tokens_ += count;
    first_window_.push_back(first_window_.back() + (count - 1) / sequence_length_);
  }
  if (first_window_.back() == 0) {
    throw Error(ExitCode::bad_data,
                fmt::format("{}: the longest of {} shard(s) has {} tokens, but a window of sequence length {} needs {}",
                            shards_.front()->name(), shards_.size(), longest, sequence_length_, sequence_length_ + 1),
                "use a shorter sequence length or more data");
  }
  return first_window_.back();
}

void Loader::load(uint64_t sample, std::span<int32_t> tokens, std::span<int32_t> targets,
                  std::span<int32_t> document_starts) {
  NIBBLE_CHECK(tokens.size() == sequence_length_ && targets.size() == sequence_length_, "size of a sample");
  const uint64_t window = sampler_.window(sample);
  const auto after = std::upper_bound(first_window_.begin(), first_window_.end(), window);
  const auto shard = static_cast<size_t>(after - first_window_.begin()) - 1;
  const uint64_t first = (window - first_window_[shard]) * sequence_length_;
  shards_[shard]->read(first, window_);
  std::copy(window_.begin(), window_.end() - 1, tokens.begin());
  std::copy(window_.begin() + 1, window_.end(), targets.begin());
  if (!document_starts.empty()) shards_[shard]->find_document_starts(first, tokens, document_starts);
}

std::string Loader::fingerprint() const {
  std::string text;
  for (const auto& shard : shards_) {
    text += fmt::format("{}\n{}\n{}\n", std::filesystem::path(shard->name()).filename().string(), shard->file_bytes(),
                        to_hex(shard->identity()));
  }
  return to_hex(hash128(text));
}

}  // namespace nibble
