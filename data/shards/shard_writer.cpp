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

std::filesystem::path ShardSeries::path(size_t index) const {
  return directory_ / fmt::format("{}-{:05}.bin", prefix_, index);
}

uint64_t ShardSeries::adopt(const std::function<void(std::span<const int32_t>)>& visit) {
  NIBBLE_CHECK(shards_ == 0, "a series that has begun");
  for (; std::filesystem::exists(path(shards_)); ++shards_) {
    ShardReader shard(path(shards_));
    const ShardHeader& header = shard.header();
    if (header.vocab_size != format_.vocab_size || header.eos_id != format_.eos_id ||
        header.tokenizer != format_.tokenizer) {
      throw Error(ExitCode::bad_data, fmt::format("{}: a shard of another tokenizer", shard.name()),
                  "remove " + directory_.string());
    }
    std::string fault;
    const auto keep_fault = [&](const std::string& text) { fault = text; };
    if (shard.verify(keep_fault, visit) > 0) {
      throw Error(ExitCode::bad_data, fault, "remove " + directory_.string());
    }
    tokens_ += header.tokens;
    documents_ += header.documents;
  }
  std::filesystem::remove(OutputFile::partial_path(path(shards_)));
  return documents_;
}

void ShardSeries::add_document(std::span<const int32_t> tokens) {
  const uint64_t count = tokens.size() + 1;
  if (open_ && open_->tokens() + count > shard_tokens_) finish();
  if (!open_) open_ = std::make_unique<ShardWriter>(path(shards_++), format_);
  open_->add_document(tokens);
  tokens_ += count;
  ++documents_;
}

void ShardSeries::finish() {
  if (open_) open_->publish();
  open_.reset();
}

}  // namespace nibble
