#include "data/file_kind.h"

#include <gtest/gtest.h>

#include "tests/data/test_files.h"

namespace nibble {
namespace {

using std::string_view_literals::operator""sv;

const FileKind& kind_of(std::string_view start) {
  return file_kind(std::as_bytes(std::span(start)));
}

TEST(FileKind, Text) {
  for (const std::string_view text :
       {""sv, "a"sv, "BZh is no archive"sv, "ORChard"sv, "PK is a name"sv, "{\"text\": 1}"sv, "\xEF\xBB\xBF text"sv,
        "caf\xE9 in Latin-1, which is found later"sv, "\n\x0E\n of no model"sv,
        "one NUL \0 in a longer text of prose"sv}) {
    EXPECT_EQ(kind_of(text).use, FileUse::text) << text;
  }
  EXPECT_EQ(kind_of(slurp(NIBBLE_SOURCE_DIR "/README.md").substr(0, file_kind_bytes)).use, FileUse::text);
}

TEST(FileKind, EverythingElseByItsName) {
  std::string tar(512, 'x');
  tar.replace(257, 5, "ustar");
  std::string utf16;
  for (const char letter : std::string_view("text without a mark")) utf16 += {letter, '\0'};
  std::string noise;
  for (int i = 0; i < 4096; ++i) noise.push_back(static_cast<char>((i * 167 + i / 7) % 256));
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"\x1F\x8B\x08", "gzip"},
      {"\x28\xB5\x2F\xFD", "zstd"},
      {"\x50\x2A\x4D\x18", "zstd"},
      {std::string("\xFD"
                   "7zXZ\0",
                   6),
       "xz"},
      {"BZh91AY&SY", "bzip2"},
      {tar, "tar"},
      {"PAR1\x15", "Parquet"},
      {"\x93NUMPY\x01", "numpy"},
      {std::string("MMIDIDX\0\0", 9), "Megatron"},
      {"\xFF\xFEt", "UTF-16"},
      {"\xFE\xFF", "UTF-16"},
      {std::string("\xFF\xFE\0\0", 4), "UTF-32"},
      {utf16, "UTF-16"},
      {"PK\x03\x04", "zip"},
      {std::string("\x88\xD8\x34\x01\x01\0\0\0", 8), "llm.c"},
      {slurp(NIBBLE_SOURCE_DIR "/data/sample/tokenizer.model").substr(0, file_kind_bytes), "SentencePiece"},
      {noise, "binary"},
  };
  for (const auto& [start, name] : expected) {
    const FileKind& kind = kind_of(start);
    EXPECT_NE(kind.use, FileUse::text) << name;
    EXPECT_NE(kind.name.find(name), std::string::npos) << kind.name << " is not " << name;
    EXPECT_EQ(kind.remedy.empty(), kind.use == FileUse::compressed) << name;
  }
}

}  // namespace
}  // namespace nibble
