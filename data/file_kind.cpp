#include "data/file_kind.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace nibble {
namespace {

using std::string_view_literals::operator""sv;

struct Magic {
  size_t offset;
  std::string_view bytes;
  FileKind kind;
};

constexpr std::string_view convert_utf16 = "convert it to UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW";
constexpr std::string_view convert_utf32 = "convert it to UTF-8: iconv -f UTF-32 -t UTF-8 FILE > NEW";
constexpr std::string_view shards_are_input =
    "token shards are what nibble train reads; nibble tokenize makes them out of text";
constexpr std::string_view columns_to_lines =
    "write its column of text as JSON lines; docs/data.md has the line of Python that does it";
constexpr std::string_view unpack = "unpack it, and give the directory";
constexpr std::string_view not_text = "give text files, JSON lines, or archives of them";

constexpr FileKind text = {FileUse::text, "text", ""};
constexpr FileKind utf16 = {FileUse::foreign, utf16_name, convert_utf16};
constexpr FileKind binary = {FileUse::foreign, unknown_name, not_text};
constexpr FileKind sentencepiece = {FileUse::foreign, "a SentencePiece model", "name it with --tokenizer"};

// The first row that fits counts, so a longer mark stands before one that begins it.
constexpr auto magics = std::to_array<Magic>({
    {0, "\x1F\x8B"sv, {FileUse::compressed, gzip_name, ""}},
    {0, "\x28\xB5\x2F\xFD"sv, {FileUse::compressed, zstd_name, ""}},
    {1, "\x2A\x4D\x18"sv, {FileUse::compressed, zstd_name, ""}},  // a skippable frame; see fits()
    {0,
     "\xFD"
     "7zXZ\0"sv,
     {FileUse::compressed, "xz data", ""}},
    {0, "BZh"sv, {FileUse::compressed, "bzip2 data", ""}},  // and more: see fits()
    {0, "\x04\x22\x4D\x18"sv, {FileUse::compressed, "lz4 data", ""}},
    {257, "ustar"sv, {FileUse::archive, "a tar archive", unpack}},
    {0, "NIBBLE\x1A\x0A"sv, {FileUse::tokens, "a token shard of nibble", shards_are_input}},
    {0, "\x88\xD8\x34\x01"sv, {FileUse::tokens, "a token shard of llm.c (GPT-2)", shards_are_input}},
    {0, "\xA1\xD9\x34\x01"sv, {FileUse::tokens, "a token shard of llm.c (Llama 3)", shards_are_input}},
    {0, "MMIDIDX\0\0"sv, {FileUse::tokens, "an index of Megatron", shards_are_input}},
    {0, "BIN.TOK\n"sv, {FileUse::tokens, "a token shard of LLMQ", shards_are_input}},
    {0, "\x93NUMPY"sv, {FileUse::tokens, "a numpy array", shards_are_input}},
    {0, "PAR1"sv, {FileUse::foreign, "Parquet data", columns_to_lines}},
    {0, "ARROW1\0\0"sv, {FileUse::foreign, "Arrow data", columns_to_lines}},
    {0, "\xFF\xFF\xFF\xFF"sv, {FileUse::foreign, "Arrow data", columns_to_lines}},
    {0, "ORC"sv, {FileUse::foreign, "ORC data", columns_to_lines}},
    {0, "Obj\x01"sv, {FileUse::foreign, "Avro data", columns_to_lines}},
    {0, "\x89HDF\r\n\x1A\n"sv, {FileUse::foreign, "HDF5 data", not_text}},
    {0, "PK\x03\x04"sv, {FileUse::foreign, "a zip archive", unpack}},
    {0, "7z\xBC\xAF\x27\x1C"sv, {FileUse::foreign, "a 7z archive", unpack}},
    {0, "Rar!\x1A\x07"sv, {FileUse::foreign, "a RAR archive", unpack}},
    {0, "%PDF-"sv, {FileUse::foreign, "a PDF document", "extract its text, for instance with pdftotext"}},
    {0,
     "\x7F"
     "ELF"sv,
     {FileUse::foreign, "a program", not_text}},
    {0, "\x89PNG"sv, {FileUse::foreign, "a picture", not_text}},
    {0, "\xFF\xD8\xFF"sv, {FileUse::foreign, "a picture", not_text}},
    {0, "GIF8"sv, {FileUse::foreign, "a picture", not_text}},
    {0, "\xFF\xFE\0\0"sv, {FileUse::foreign, "UTF-32", convert_utf32}},
    {0, "\0\0\xFE\xFF"sv, {FileUse::foreign, "UTF-32", convert_utf32}},
    {0, "\xFF\xFE"sv, utf16},
    {0, "\xFE\xFF"sv, utf16},
});

unsigned value(std::span<const std::byte> start, size_t index) {
  return index < start.size() ? std::to_integer<unsigned>(start[index]) : 256U;
}

bool fits(const Magic& magic, std::span<const std::byte> start) {
  if (start.size() < magic.offset + magic.bytes.size()) return false;
  if (std::memcmp(start.data() + magic.offset, magic.bytes.data(), magic.bytes.size()) != 0) return false;
  // Marks that could also be text need one byte more.
  if (magic.offset == 1) return (value(start, 0) & 0xF0U) == 0x50U;
  if (magic.bytes == "BZh") return value(start, 3) >= '1' && value(start, 3) <= '9' && value(start, 4) >= 0x17;
  if (magic.bytes == "ORC") return value(start, 3) < ' ';
  return true;
}

// A model is a protocol buffer: field 1, a piece, which is field 1, its text, and field 2, its score in 4 bytes.
bool is_sentencepiece(std::span<const std::byte> start) {
  const unsigned piece = value(start, 1);
  const unsigned length = value(start, 3);
  return value(start, 0) == 0x0A && piece < 0x80 && value(start, 2) == 0x0A && length + 2 <= piece &&
         value(start, 4 + length) == 0x15;
}

// UTF-16 without a mark has a zero in every second byte, as far as its characters are Latin.
bool is_unmarked_utf16(std::span<const std::byte> start) {
  std::array<size_t, 2> zeros = {};
  for (size_t i = 0; i < start.size(); ++i) zeros[i % 2] += start[i] == std::byte{0} ? 1 : 0;
  const auto [few, many] = std::minmax(zeros[0], zeros[1]);
  return start.size() >= 4 && many * 4 >= start.size() && few * 16 <= many;
}

// Text has hardly any control characters but white space, whatever its encoding.
bool is_binary(std::span<const std::byte> start) {
  const auto controls = static_cast<size_t>(std::count_if(start.begin(), start.end(), [](std::byte byte) {
    const auto character = std::to_integer<unsigned>(byte);
    return character < 0x20 && (character < '\t' || character > '\r') && character != 0x1B;
  }));
  return start.size() >= 32 && controls * 10 > start.size();
}

}  // namespace

const FileKind& file_kind(std::span<const std::byte> start) {
  const auto magic = std::find_if(magics.begin(), magics.end(), [&](const Magic& row) { return fits(row, start); });
  if (magic != magics.end()) return magic->kind;
  start = start.first(std::min(start.size(), file_kind_bytes));
  if (is_sentencepiece(start)) return sentencepiece;
  if (is_unmarked_utf16(start)) return utf16;
  return is_binary(start) ? binary : text;
}

size_t byte_order_mark_bytes(std::span<const std::byte> start) {
  constexpr std::string_view mark = "\xEF\xBB\xBF";
  return start.size() >= mark.size() && std::memcmp(start.data(), mark.data(), mark.size()) == 0 ? mark.size() : 0;
}

}  // namespace nibble
