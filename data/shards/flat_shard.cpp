#include "data/shards/flat_shard.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "dist/base/error.h"
#include "dist/base/little_endian.h"

namespace nibble {
namespace {

uint64_t hash_of_ends(const ShardFile& file) {
  constexpr uint64_t part = 65536;
  std::vector<std::byte> content(sizeof(uint64_t));
  store_little_endian(std::span(content), 0, file.size());
  for (const uint64_t offset : {uint64_t{0}, file.size() - std::min(part, file.size())}) {
    std::vector<std::byte> piece(std::min(part, file.size() - offset));
    file.read(offset, piece);
    content.insert(content.end(), piece.begin(), piece.end());
  }
  return hash64(content);
}

}  // namespace

FlatShard::FlatShard(const std::filesystem::path& path, IdArray (*layout)(const ShardFile& file))
    : file_(path), name_(path.string()), ids_(layout(file_)), identity_(hash_of_ends(file_)) {
  NIBBLE_CHECK(ids_.tokens > 0 && ids_.offset + ids_.tokens * ids_.token_bytes == file_.size(), name_);
}

void FlatShard::read(uint64_t first, std::span<int32_t> ids) {
  NIBBLE_CHECK(first <= ids_.tokens && ids.size() <= ids_.tokens - first, "read beyond the shard");
  const uint64_t offset = ids_.offset + first * ids_.token_bytes;
  buffer_.resize(ids.size() * ids_.token_bytes);
  file_.read(offset, buffer_);
  for (size_t i = 0; i < ids.size(); ++i) {
    const uint32_t id = ids_.token_bytes == 2 ? load_little_endian<uint16_t>(buffer_, 2 * i)
                                              : load_little_endian<uint32_t>(buffer_, 4 * i);
    if (id >= ids_.vocab_size) {
      throw Error(ExitCode::bad_data,
                  fmt::format("{}: token {} (byte {}) has id {}, but the vocabulary size is {}", name_, first + i,
                              offset + i * ids_.token_bytes, id, ids_.vocab_size),
                  "restore the shard from a copy, or make it again with the program that wrote it");
    }
    ids[i] = static_cast<int32_t>(id);
  }
}

void FlatShard::find_document_starts(uint64_t /*first*/, std::span<const int32_t> ids,
                                     std::span<int32_t> document_starts) {
  NIBBLE_CHECK(ids.size() == document_starts.size(), "a start for every token");
  int32_t start = 0;
  for (size_t i = 0; i < document_starts.size(); ++i) {
    if (ids_.first_of_document && static_cast<uint32_t>(ids[i]) == *ids_.first_of_document) start = narrow<int32_t>(i);
    document_starts[i] = start;
  }
}

}  // namespace nibble
