#include "data/shards/shard_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/utf8.h"

namespace nibble {
namespace {

constexpr std::array formats{&nibble_format, &llmc_format, &megatron_format, &npy_format, &bare_format};

FileStart start_of(const std::filesystem::path& path) {
  const InputFile file(path);
  FileStart start{.path = path,
                  .size = file.size(),
                  .bytes = std::vector<std::byte>(std::min<uint64_t>(file_kind_bytes, file.size()))};
  file.read(0, start.bytes);
  return start;
}

bool is_control(std::byte byte) {
  const auto value = std::to_integer<unsigned>(byte);
  return value == 0x7F || (value < 0x20 && (value < '\t' || value > '\r'));
}

// The last code point of `start` may be cut.
bool is_plain_text(std::span<const std::byte> start) {
  constexpr size_t longest_code_point = 4;
  if (std::ranges::any_of(start, is_control)) return false;
  const std::optional<size_t> invalid = find_invalid_utf8({reinterpret_cast<const char*>(start.data()), start.size()});
  return !invalid || (*invalid > 0 && *invalid + longest_code_point > start.size());
}

std::string remedy_of(const FileKind& kind) {
  switch (kind.use) {
    case FileUse::text: return "make shards of it with nibble tokenize, or leave it out of the patterns";
    case FileUse::compressed: return "decompress it; of text, compressed or not, nibble tokenize makes shards";
    case FileUse::tokens: return "write its ids in one of the layouts of docs/formats.md";
    case FileUse::archive:
    case FileUse::foreign: break;
  }
  return fmt::format("leave it out of the patterns, or {}; of text, nibble tokenize makes shards", kind.remedy);
}

// Ids of 4 bytes below 65,536 have zeros in every other pair of bytes.
bool looks_like_four_bytes(std::span<const std::byte> start) {
  if (start.size() < 4) return false;
  for (size_t i = 0; i + 4 <= start.size(); i += 4) {
    if (start[i + 3] != std::byte{0} || static_cast<unsigned>(start[i + 2]) > 3) return false;
  }
  return true;
}

// Throws the error for a file that is none of the formats.
[[noreturn]] void refuse(const FileStart& file) {
  const std::string name = file.path.string();
  if (file.bytes.empty()) {
    throw Error(ExitCode::bad_data, fmt::format("{}: the file is empty", name), "leave it out of the patterns");
  }
  if (const FileKind* kind = unmistakable_kind(file.bytes)) {
    throw Error(ExitCode::bad_data, fmt::format("{}: this is {}, no token shard", name, kind->name), remedy_of(*kind));
  }
  const std::filesystem::path index = std::filesystem::path(file.path).replace_extension(".idx");
  std::error_code ignored;
  if (index != file.path && std::filesystem::exists(index, ignored)) {
    throw Error(ExitCode::bad_data,
                fmt::format("{}: a file without a header, and {} does not begin as an index of Megatron's", name,
                            index.string()),
                "restore both files of the pair from a copy");
  }
  const uint32_t width = looks_like_four_bytes(file.bytes) ? 4 : 2;
  throw Error(
      ExitCode::bad_data,
      fmt::format("{}: not a token shard of nibble, llm.c, Megatron or NumPy by its first bytes; it may be bare "
                  "ids of {} bytes (nanoGPT's train.bin)",
                  name, width),
      fmt::format("if so, set data.token_bytes={} (nibble inspect --token-bytes {}); Megatron's PREFIX.bin needs "
                  "PREFIX.idx beside it",
                  width, width));
}

}  // namespace

// The first two bytes of gzip data are an id of GPT-2, and the beginnings of UTF-16 without a mark are small ids.
const FileKind* unmistakable_kind(std::span<const std::byte> start) {
  const FileKind& kind = file_kind(start);
  if (kind.use == FileUse::text) return is_plain_text(start) ? &kind : nullptr;
  if (kind.name == gzip_name) return start.size() > 2 && start[2] == std::byte{8} ? &kind : nullptr;
  const bool has_mark = start.size() > 1 && std::to_integer<unsigned>(start[0] | start[1]) == 0xFF &&
                        std::to_integer<unsigned>(start[0] & start[1]) == 0xFE;
  if (kind.name == utf16_name) return has_mark ? &kind : nullptr;
  return kind.name == unknown_name ? nullptr : &kind;
}

std::unique_ptr<TokenShard> open_token_shard(const std::filesystem::path& path, const ShardOptions& options) {
  const FileStart start = start_of(path);
  for (const ShardFormat* format : formats) {
    if (format->recognises(start, options)) return format->open(path, options);
  }
  refuse(start);
}

}  // namespace nibble
