// What a file is, told by its first bytes, whatever its name says.
//
// Everything that reads a file from outside asks here, so that every message can name what was found and what helps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace nibble {

enum class FileUse : uint8_t {
  text,        // UTF-8, as far as its beginning shows; also an empty file
  compressed,  // one stream, to be decompressed: data/text/byte_source.h
  archive,     // tar: files one after the other
  tokens,      // ids, or what belongs to them: data/shards
  foreign,     // nothing that nibble reads
};

struct FileKind {
  FileUse use;
  std::string_view name;    // "gzip data", to follow "this is"
  std::string_view remedy;  // what to do with it where text is wanted; empty for text
};

constexpr std::string_view zstd_name = "zstd data";
constexpr std::string_view gzip_name = "gzip data";
constexpr std::string_view utf16_name = "UTF-16";
constexpr std::string_view unknown_name = "binary data of an unknown kind";

// As many first bytes as file_kind() looks at.
constexpr size_t file_kind_bytes = 4096;

// Returns what a file is that begins with these bytes: at least file_kind_bytes of them, or the whole file.
const FileKind& file_kind(std::span<const std::byte> start);

// Returns how many bytes a UTF-8 byte-order mark takes at the beginning of a text: 3 or 0.
size_t byte_order_mark_bytes(std::span<const std::byte> start);

}  // namespace nibble
