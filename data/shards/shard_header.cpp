// The header of a shard: its layout in bytes, and the checks of its fields.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

#include "data/shards/shard.h"
#include "dist/base/error.h"
#include "dist/base/little_endian.h"

namespace nibble {
namespace {

// The control characters reveal a file that was copied in text mode or printed by accident.
constexpr std::string_view magic("NIBBLE\x1A\n", 8);
constexpr uint32_t version = 1;

// Byte offsets in the header; docs/formats.md has the same table.
constexpr size_t at_version = 8;
constexpr size_t at_token_bytes = 12;
constexpr size_t at_tokens = 16;
constexpr size_t at_documents = 24;
constexpr size_t at_vocab_size = 32;
constexpr size_t at_eos_id = 36;
constexpr size_t at_tokenizer = 40;
constexpr size_t at_block_bytes = 56;
constexpr size_t at_zero = 60;
constexpr size_t at_content_hash = 64;
constexpr size_t at_reserved = 72;
constexpr size_t at_header_hash = ShardHeader::bytes - sizeof(uint64_t);

[[noreturn]] void fail(const std::string& name, const std::string& reason) {
  throw Error(ExitCode::bad_data, fmt::format("{}: {}", name, reason),
              "restore the shard from a copy, or make it again with nibble tokenize");
}

// Checks the fields that the sizes depend on; afterwards none of the sizes can wrap around 64 bits.
void check_fields(const ShardHeader& header, const std::string& name) {
  if (header.token_bytes != 2 && header.token_bytes != 4) {
    fail(name, fmt::format("tokens of {} bytes, not 2 or 4", header.token_bytes));
  }
  if (header.tokens == 0 || header.documents == 0) fail(name, "the shard is empty");
  if (header.tokens > (1ULL << 60U)) fail(name, fmt::format("{} tokens are too many", header.tokens));
  if (header.documents > header.tokens) {
    fail(name, fmt::format("{} documents in {} tokens", header.documents, header.tokens));
  }
  const uint64_t limit = header.token_bytes == 2 ? 1ULL << 16U : ShardHeader::max_vocab_size;
  if (header.vocab_size == 0 || header.vocab_size > limit) {
    fail(name, fmt::format("a vocabulary of {} with tokens of {} bytes", header.vocab_size, header.token_bytes));
  }
  if (header.eos_id >= header.vocab_size) {
    fail(name, fmt::format("end-of-document token {} in a vocabulary of {}", header.eos_id, header.vocab_size));
  }
  if (!std::has_single_bit(header.block_bytes) || header.block_bytes < (1U << 12U) ||
      header.block_bytes > (1U << 30U)) {
    fail(name, fmt::format("blocks of {} bytes", header.block_bytes));
  }
}

}  // namespace

std::array<std::byte, ShardHeader::bytes> ShardHeader::serialize() const {
  std::array<std::byte, bytes> data = {};
  std::memcpy(data.data(), magic.data(), magic.size());
  store_little_endian(data, at_version, version);
  store_little_endian(data, at_token_bytes, token_bytes);
  store_little_endian(data, at_tokens, tokens);
  store_little_endian(data, at_documents, documents);
  store_little_endian(data, at_vocab_size, vocab_size);
  store_little_endian(data, at_eos_id, eos_id);
  std::memcpy(data.data() + at_tokenizer, tokenizer.bytes.data(), tokenizer.bytes.size());
  store_little_endian(data, at_block_bytes, block_bytes);
  store_little_endian(data, at_content_hash, content_hash);
  store_little_endian(data, at_header_hash, hash64(std::span<const std::byte>(data).first(at_header_hash)));
  return data;
}

bool ShardHeader::recognises(std::span<const std::byte> start) {
  return start.size() >= magic.size() && std::memcmp(start.data(), magic.data(), magic.size()) == 0;
}

ShardHeader ShardHeader::parse(std::span<const std::byte> data, uint64_t file_size, const std::string& name) {
  if (!recognises(data)) fail(name, "not a token shard of nibble (by its first bytes)");
  if (data.size() < bytes) fail(name, fmt::format("{} bytes are less than the header of a shard", data.size()));
  const auto found_version = load_little_endian<uint32_t>(data, at_version);
  const auto found_hash = load_little_endian<uint64_t>(data, at_header_hash);
  const uint64_t hash = hash64(data.first(at_header_hash));
  if (found_hash != hash) {
    fail(name, fmt::format("the header (bytes 0 to {}) is damaged: its hash is {}, not {}", bytes - 1, to_hex(hash),
                           to_hex(found_hash)));
  }
  if (found_version != version) {
    fail(name, fmt::format("format version {}, this nibble reads version {}", found_version, version));
  }
  ShardHeader header;
  header.token_bytes = load_little_endian<uint32_t>(data, at_token_bytes);
  header.tokens = load_little_endian<uint64_t>(data, at_tokens);
  header.documents = load_little_endian<uint64_t>(data, at_documents);
  header.vocab_size = load_little_endian<uint32_t>(data, at_vocab_size);
  header.eos_id = load_little_endian<uint32_t>(data, at_eos_id);
  std::memcpy(header.tokenizer.bytes.data(), data.data() + at_tokenizer, header.tokenizer.bytes.size());
  header.block_bytes = load_little_endian<uint32_t>(data, at_block_bytes);
  header.content_hash = load_little_endian<uint64_t>(data, at_content_hash);
  const auto reserved = data.subspan(at_reserved, at_header_hash - at_reserved);
  if (load_little_endian<uint32_t>(data, at_zero) != 0 ||
      std::any_of(reserved.begin(), reserved.end(), [](std::byte value) { return value != std::byte{0}; })) {
    fail(name, "reserved bytes of the header are not zero");
  }
  check_fields(header, name);
  if (header.file_bytes() != file_size) {
    fail(name, fmt::format("{} bytes long, but its header describes {} bytes", file_size, header.file_bytes()));
  }
  return header;
}

}  // namespace nibble
