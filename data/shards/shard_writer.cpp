// Writing one shard, and a series of shards.
#include <fmt/format.h>

#include <utility>

#include "data/shards/shard.h"
#include "dist/base/error.h"

namespace nibble {

ShardWriter::ShardWriter(const std::filesystem::path& path, const ShardHeader& format) : file_(path), header_(format) {
  NIBBLE_CHECK(format.vocab_size > 0 && format.vocab_size <= ShardHeader::max_vocab_size, "vocabulary size");
  NIBBLE_CHECK(format.eos_id < format.vocab_size, "end-of-document token outside the vocabulary");
  header_.token_bytes = format.vocab_size <= (1U << 16U) ? 2 : 4;
  header_.tokens = 0;
  header_.documents = 0;
  block_.reserve(header_.block_bytes);
}

void ShardWriter::add_token(uint32_t id) {
  for (uint32_t byte = 0; byte < header_.token_bytes; ++byte) {
    block_.push_back(static_cast<std::byte>((id >> (8 * byte)) & 0xFFU));
  }
  ++header_.tokens;
  if (block_.size() == header_.block_bytes) flush_block();
}

void ShardWriter::flush_block() {
  if (block_.empty()) return;
  hashes_.push_back(hash64(block_));
  file_.write_at(offset_, block_);
  offset_ += block_.size();
  block_.clear();
}

void ShardWriter::add_document(std::span<const int32_t> tokens) {
  NIBBLE_CHECK(!finished_, "a document after finish");
  for (const int32_t id : tokens) {
    if (id < 0 || static_cast<uint32_t>(id) >= header_.vocab_size) {
      throw Error(ExitCode::bad_data,
                  fmt::format("{}: id {} of token {} is outside the vocabulary of {}", name(), id, header_.tokens,
                              header_.vocab_size),
                  "write the shard with the vocabulary size of its tokenizer");
    }
    add_token(static_cast<uint32_t>(id));
  }
  add_token(header_.eos_id);
  ends_.push_back(header_.tokens);
}

void ShardWriter::finish() {
  if (std::exchange(finished_, true)) return;
  NIBBLE_CHECK(!ends_.empty(), "a shard without documents");
  flush_block();
  header_.documents = ends_.size();
  const auto table = std::as_bytes(std::span(ends_));
  file_.write_at(offset_, table);
  hashes_.push_back(hash64(table));
  const auto hashes = std::as_bytes(std::span(hashes_));
  file_.write_at(offset_ + table.size(), hashes);
  header_.content_hash = hash64(hashes);
  file_.write_at(0, header_.serialize());
  file_.finish();
}

void ShardWriter::publish() {
  finish();
  file_.publish();
}

ShardSeries::ShardSeries(std::filesystem::path directory, std::string prefix, const ShardHeader& format,
                         uint64_t shard_tokens)
    : directory_(std::move(directory)), prefix_(std::move(prefix)), format_(format), shard_tokens_(shard_tokens) {}

void ShardSeries::add_document(std::span<const int32_t> tokens) {
  const uint64_t count = tokens.size() + 1;
  if (shards_.empty() || shards_.back()->tokens() + count > shard_tokens_) {
    if (!shards_.empty()) shards_.back()->finish();
    const auto path = directory_ / fmt::format("{}-{:05}.bin", prefix_, shards_.size());
    shards_.push_back(std::make_unique<ShardWriter>(path, format_));
  }
  shards_.back()->add_document(tokens);
  tokens_ += count;
  ++documents_;
}

void ShardSeries::publish() {
  // All bytes are on the disk before the first name appears.
  for (const auto& shard : shards_) shard->finish();
  for (const auto& shard : shards_) shard->publish();
}

}  // namespace nibble
