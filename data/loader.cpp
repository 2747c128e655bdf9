#include "data/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "data/shards/shard_pattern.h"
#include "dist/base/error.h"

namespace nibble {
namespace {

std::vector<std::unique_ptr<TokenShard>> open_shards(const std::vector<std::string>& patterns,
                                                     const ShardOptions& options) {
  std::vector<std::unique_ptr<TokenShard>> shards;
  const TokenShard* named = nullptr;  // the first one that names its tokenizer
  for (const std::string& path : expand_patterns(patterns)) {
    shards.push_back(open_token_shard(path, options));
    const TokenShard& last = *shards.back();
    if (named == nullptr && last.tokenizer() != Hash128{}) named = &last;
    check_same_tokenizer(*shards.front(), last);
    if (named != nullptr) check_same_tokenizer(*named, last);
  }
  return shards;
}

}  // namespace

Loader::Loader(const std::vector<std::string>& patterns, uint64_t sequence_length, uint64_t seed, bool shuffle,
               const ShardOptions& options)
    : sequence_length_(sequence_length),
      seed_(seed),
      shuffle_(shuffle),
      shards_(open_shards(patterns, options)),
      window_(sequence_length + 1),
      sampler_(count_windows(), seed, shuffle),
      start_{.lengths = {sequence_length}},
      started_(sampler_) {}

// Returns the windows of an epoch, and fills the tables of what lies before each shard.
uint64_t Loader::count_windows() {
  NIBBLE_CHECK(sequence_length_ >= 1 && sequence_length_ < (1ULL << 32U), "sequence length");
  tokens_before_ = {0};
  windows_before_ = {0};
  for (const auto& shard : shards_) {
    tokens_before_.push_back(tokens_before_.back() + shard->tokens());
    windows_before_.push_back(windows_before_.back() + (shard->tokens() - 1) / sequence_length_);
  }
  if (windows_of(sequence_length_) == 0) {
    throw Error(ExitCode::bad_data,
                fmt::format("{}: {} shard(s) have {} tokens, but a window of sequence length {} needs {}",
                            shards_.front()->name(), shards_.size(), tokens(), sequence_length_, sequence_length_ + 1),
                "use a shorter sequence length or more data");
  }
  return windows_of(sequence_length_);
}

uint64_t Loader::windows_of(uint64_t length) const {
  if (rule_ == WindowRule::across_shards) return (tokens() - 1) / length;
  NIBBLE_CHECK(length == sequence_length_, "windows inside shards have one length");
  return windows_before_.back();
}

uint64_t Loader::tokens_in_no_window() const {
  if (rule_ == WindowRule::across_shards) return tokens() - (windows() * sequence_length_ + 1);
  uint64_t unused = 0;
  for (const auto& shard : shards_) {
    const uint64_t used = (shard->tokens() - 1) / sequence_length_ * sequence_length_;
    unused += shard->tokens() - (used == 0 ? 0 : used + 1);
  }
  return unused;
}

bool Loader::has_shards_of(const DataPosition& position) const {
  std::vector<uint64_t> own;
  for (const auto& shard : shards_) own.push_back(shard->identity());
  std::vector<uint64_t> others = position.shards;
  std::sort(own.begin(), own.end());
  std::sort(others.begin(), others.end());
  return own == others;
}

void Loader::order_as(const std::vector<uint64_t>& identities) {
  for (size_t i = 0; i < identities.size(); ++i) {
    const auto found = std::find_if(shards_.begin() + static_cast<std::ptrdiff_t>(i), shards_.end(),
                                    [&](const auto& shard) { return shard->identity() == identities[i]; });
    NIBBLE_CHECK(found != shards_.end(), "the shards are those of the position");
    std::rotate(shards_.begin() + static_cast<std::ptrdiff_t>(i), found, found + 1);
  }
}

void Loader::continue_at(const DataPosition& position, uint64_t first_sample) {
  NIBBLE_CHECK(!position.lengths.empty() && position.lengths.back() == sequence_length_, "the length of the position");
  if (!position.shards.empty()) order_as(position.shards);
  rule_ = position.across_shards ? WindowRule::across_shards : WindowRule::inside_shards;
  sampler_ = Sampler(count_windows(), seed_, shuffle_);
  start_ = position;
  first_sample_ = first_sample;
  started_ = Sampler(windows_of(position.lengths.front()), seed_, shuffle_);
}

DataPosition Loader::position(uint64_t sample) const {
  NIBBLE_CHECK(sample >= first_sample_, "a sample before those of this loader");
  const uint64_t index = start_.taken + (sample - first_sample_);
  DataPosition position{.across_shards = rule_ == WindowRule::across_shards,
                        .epoch = start_.epoch + index / windows(),
                        .taken = index % windows(),
                        .lengths = {sequence_length_}};
  if (position.epoch == start_.epoch) position.lengths = start_.lengths;
  for (const auto& shard : shards_) position.shards.push_back(shard->identity());
  return position;
}

// The order of an epoch that was begun with longer sequences: each of its windows is now several, which come one after
// the other, and at the end come the windows that no longer one covers. So what has been read is a beginning of it.
uint64_t Loader::window_of_started_epoch(size_t level, uint64_t index) const {
  if (level == 0) return started_.window(start_.epoch * started_.windows() + index);
  const uint64_t longer = start_.lengths[level - 1];
  const uint64_t parts = longer / start_.lengths[level];
  if (index >= parts * windows_of(longer)) return index;
  return window_of_started_epoch(level - 1, index / parts) * parts + index % parts;
}

uint64_t Loader::window_of(uint64_t sample) const {
  NIBBLE_CHECK(sample >= first_sample_, "a sample before those of this loader");
  const uint64_t index = start_.taken + (sample - first_sample_);
  if (index < windows() && shuffle_) return window_of_started_epoch(start_.lengths.size() - 1, index);
  return sampler_.window(start_.epoch * windows() + index);
}

uint64_t Loader::first_token_of(uint64_t window) const {
  if (rule_ == WindowRule::across_shards) return window * sequence_length_;
  const auto after = std::upper_bound(windows_before_.begin(), windows_before_.end(), window);
  const auto shard = static_cast<size_t>(after - windows_before_.begin()) - 1;
  return tokens_before_[shard] + (window - windows_before_[shard]) * sequence_length_;
}

// Fills window_ with the tokens from `first_token` on, and document_starts, unless it is empty, for all but the last.
void Loader::read(uint64_t first_token, std::span<int32_t> document_starts) {
  const auto after = std::upper_bound(tokens_before_.begin(), tokens_before_.end(), first_token);
  auto shard = static_cast<size_t>(after - tokens_before_.begin()) - 1;
  for (size_t done = 0; done < window_.size(); ++shard) {
    const uint64_t first = first_token + done - tokens_before_[shard];
    const auto count = std::min<uint64_t>(window_.size() - done, shards_[shard]->tokens() - first);
    const std::span<int32_t> part = std::span(window_).subspan(done, count);
    shards_[shard]->read(first, part);
    if (done < document_starts.size()) {
      const auto starts = document_starts.subspan(done, std::min<size_t>(count, document_starts.size() - done));
      shards_[shard]->find_document_starts(first, part.first(starts.size()), starts);
      for (int32_t& start : starts) start += narrow<int32_t>(done);
    }
    done += count;
  }
}

void Loader::load(uint64_t sample, std::span<int32_t> tokens, std::span<int32_t> targets,
                  std::span<int32_t> document_starts) {
  NIBBLE_CHECK(tokens.size() == sequence_length_ && targets.size() == sequence_length_, "size of a sample");
  NIBBLE_CHECK(document_starts.empty() || document_starts.size() == sequence_length_, "a start for every token");
  read(first_token_of(window_of(sample)), document_starts);
  std::copy(window_.begin(), window_.end() - 1, tokens.begin());
  std::copy(window_.begin() + 1, window_.end(), targets.begin());
}

Hash128 Loader::tokenizer_hash() const {
  for (const auto& shard : shards_) {
    if (shard->tokenizer() != Hash128{}) return shard->tokenizer();
  }
  return {};
}

std::string Loader::fingerprint() const {
  std::string text;
  for (const auto& shard : shards_) text += fmt::format("{}\n{}\n", shard->file_bytes(), to_hex(shard->identity()));
  return to_hex(hash128(text));
}

std::string Loader::fingerprint_with_names() const {
  std::string text;
  for (const auto& shard : shards_) {
    text += fmt::format("{}\n{}\n{}\n", std::filesystem::path(shard->name()).filename().string(), shard->file_bytes(),
                        to_hex(shard->identity()));
  }
  return to_hex(hash128(text));
}

std::vector<std::pair<std::string, std::string>> shards_in_both(const Loader& a, const Loader& b) {
  std::map<uint64_t, std::string> names;  // by identity
  for (size_t i = 0; i < a.shards(); ++i) names.emplace(a.shard(i).identity(), a.shard(i).name());
  std::vector<std::pair<std::string, std::string>> pairs;
  for (size_t i = 0; i < b.shards(); ++i) {
    const auto found = names.find(b.shard(i).identity());
    if (found != names.end()) pairs.emplace_back(found->second, b.shard(i).name());
  }
  return pairs;
}

void check_same_tokenizer(const TokenShard& a, const TokenShard& b) {
  const auto differ = [](const auto& one, const auto& other, const auto& unknown) {
    return one != unknown && other != unknown && one != other;
  };
  if (a.vocab_size() == b.vocab_size() && !differ(a.tokenizer(), b.tokenizer(), Hash128{}) &&
      !differ(a.eos_id(), b.eos_id(), std::nullopt)) {
    return;
  }
  throw Error(
      ExitCode::bad_data,
      fmt::format("{} and {} were made with different tokenizers (vocabulary {} and {}, hash {} and {})", a.name(),
                  b.name(), a.vocab_size(), b.vocab_size(), to_hex(a.tokenizer()), to_hex(b.tokenizer())),
      a.states_vocabulary() && b.states_vocabulary()
          ? "train on shards of one tokenizer; nibble tokenize --tokenizer reuses one"
          : "train on shards of one tokenizer; if they are, set data.vocab_size to its vocabulary");
}

size_t repeated_shards(const Loader& loader) {
  std::set<uint64_t> seen;
  size_t repeated = 0;
  for (size_t i = 0; i < loader.shards(); ++i) repeated += seen.insert(loader.shard(i).identity()).second ? 0 : 1;
  return repeated;
}

}  // namespace nibble
