// Reading and checking a shard.
#include <fmt/format.h>

#include <algorithm>

#include "data/shards/shard.h"
#include "data/shards/shard_format.h"
#include "dist/base/error.h"
#include "dist/base/little_endian.h"

namespace nibble {
namespace {

[[noreturn]] void fail(const std::string& name, const std::string& reason) {
  throw Error(ExitCode::bad_data, fmt::format("{}: {}", name, reason),
              "restore the shard from a copy, or make it again with nibble tokenize");
}

}  // namespace

ShardReader::ShardReader(const std::filesystem::path& path) : file_(path), name_(path.string()) {
  std::vector<std::byte> data(std::min(file_.size(), ShardHeader::bytes));
  file_.read(0, data);
  header_ = ShardHeader::parse(data, file_.size(), name_);
  header_hash_ = hash64(data);
  // parse() has checked that these sizes agree with the size of the file.
  hashes_.resize(header_.blocks() + 1);
  file_.read(header_.hashes_offset(), std::as_writable_bytes(std::span(hashes_)));
  const uint64_t hash = hash64(std::as_bytes(std::span(hashes_)));
  if (hash != header_.content_hash) {
    fail(name_,
         fmt::format("the table of hashes (bytes {} to {}) is damaged: its hash is {}, not {}", header_.hashes_offset(),
                     header_.file_bytes() - 1, to_hex(hash), to_hex(header_.content_hash)));
  }
  checked_.resize(header_.blocks());
}

void ShardReader::decode(std::span<const std::byte> data, std::span<int32_t> ids) const {
  if (header_.token_bytes == 2) {
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = load_little_endian<uint16_t>(data, 2 * i);
  } else {
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = load_little_endian<int32_t>(data, 4 * i);
  }
}

void ShardReader::check_block(uint64_t block) {
  if (checked_[block]) return;
  const uint64_t begin = block * header_.block_bytes;
  const uint64_t end = std::min(begin + header_.block_bytes, header_.payload_bytes());
  const uint64_t offset = ShardHeader::bytes + begin;
  buffer_.resize(end - begin);
  file_.read(offset, buffer_);
  const uint64_t hash = hash64(buffer_);
  if (hash != hashes_[block]) {
    fail(name_,
         fmt::format("block {} of {} (bytes {} to {}) is damaged: its hash is {}, not {}", block, header_.blocks(),
                     offset, ShardHeader::bytes + end - 1, to_hex(hash), to_hex(hashes_[block])));
  }
  std::vector<int32_t> ids((end - begin) / header_.token_bytes);
  decode(buffer_, ids);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (static_cast<uint32_t>(ids[i]) >= header_.vocab_size) {
      fail(name_,
           fmt::format("token {} (byte {}) has id {}, but the vocabulary size is {}", begin / header_.token_bytes + i,
                       offset + i * header_.token_bytes, static_cast<uint32_t>(ids[i]), header_.vocab_size));
    }
  }
  checked_[block] = true;
}

void ShardReader::read(uint64_t first, std::span<int32_t> ids) {
  NIBBLE_CHECK(first <= header_.tokens && ids.size() <= header_.tokens - first, "read beyond the shard");
  if (ids.empty()) return;
  const uint64_t begin = first * header_.token_bytes;
  const uint64_t end = begin + ids.size() * header_.token_bytes;
  for (uint64_t block = begin / header_.block_bytes; block <= (end - 1) / header_.block_bytes; ++block) {
    check_block(block);
  }
  buffer_.resize(end - begin);
  file_.read(ShardHeader::bytes + begin, buffer_);
  decode(buffer_, ids);
}

const std::vector<uint64_t>& ShardReader::document_ends() {
  if (!document_ends_.empty()) return document_ends_;
  std::vector<uint64_t> ends(header_.documents);
  file_.read(header_.documents_offset(), std::as_writable_bytes(std::span(ends)));
  const uint64_t hash = hash64(std::as_bytes(std::span(ends)));
  if (hash != hashes_.back()) {
    fail(name_,
         fmt::format("the table of documents (bytes {} to {}) is damaged: its hash is {}, not {}",
                     header_.documents_offset(), header_.hashes_offset() - 1, to_hex(hash), to_hex(hashes_.back())));
  }
  uint64_t previous = 0;
  for (size_t i = 0; i < ends.size(); ++i) {
    if (ends[i] <= previous || ends[i] > header_.tokens) {
      fail(name_,
           fmt::format("document {} ends at token {}, after token {} of {}", i, ends[i], previous, header_.tokens));
    }
    previous = ends[i];
  }
  if (previous != header_.tokens) {
    fail(name_, fmt::format("the last document ends at token {} of {}", previous, header_.tokens));
  }
  document_ends_ = std::move(ends);
  return document_ends_;
}

void ShardReader::find_document_starts(uint64_t first, std::span<const int32_t> ids,
                                       std::span<int32_t> document_starts) {
  NIBBLE_CHECK(ids.size() == document_starts.size(), "a start for every token");
  find_starts_in_table(document_ends(), first, document_starts);
}

void ShardReader::check_document_marks() {
  const auto& ends = document_ends();
  int32_t id = 0;
  for (size_t i = 0; i < ends.size(); ++i) {
    read(ends[i] - 1, std::span(&id, 1));
    if (static_cast<uint32_t>(id) != header_.eos_id) {
      fail(name_,
           fmt::format("document {} ends with token {}, not with the end-of-document token {}", i, id, header_.eos_id));
    }
  }
}

uint64_t ShardReader::verify(const std::function<void(const std::string&)>& report,
                             const std::function<void(std::span<const int32_t>)>& visit) {
  uint64_t damaged = 0;
  const auto attempt = [&](const auto& check) {
    try {
      check();
    } catch (const Error& error) {
      if (error.code() != ExitCode::bad_data) throw;
      report(error.what());
      ++damaged;
    }
  };
  const uint64_t block_tokens = header_.block_bytes / header_.token_bytes;
  std::vector<int32_t> ids;
  for (uint64_t block = 0; block < header_.blocks(); ++block) {
    attempt([&] {
      const uint64_t first = block * block_tokens;
      ids.resize(std::min(block_tokens, header_.tokens - first));
      read(first, ids);
      visit(ids);
    });
  }
  attempt([&] { document_ends(); });
  if (damaged == 0) attempt([&] { check_document_marks(); });
  return damaged;
}

const ShardFormat nibble_format = {
    .recognises = [](const FileStart& file, const ShardOptions&) { return ShardHeader::recognises(file.bytes); },
    .open = [](const std::filesystem::path& path, const ShardOptions&) -> std::unique_ptr<TokenShard> {
      return std::make_unique<ShardReader>(path);
    }};

}  // namespace nibble
