// Reads the documents of a text file. NAME.jsonl holds one JSON object a line, with the text under a key; every other
// name is plain text. Both may be compressed (.zst). Memory is bounded by the longest document.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/text/byte_source.h"

namespace nibble {

// How a plain text file is cut into documents. A paragraph ends at an empty line. Documents of lines and paragraphs do
// not contain the line feed that ends them; empty ones are left out.
enum class DocumentRule : uint8_t { file, line, paragraph };

struct TextOptions {
  DocumentRule documents = DocumentRule::file;
  std::string text_key = "text";
  bool replace_invalid = false;               // bytes that are not UTF-8 become U+FFFD instead of being an error
  uint64_t max_document_bytes = 1ULL << 30U;  // a longer document (or JSON line) is ExitCode::bad_data
};

struct Document {
  std::string text;   // valid UTF-8, not empty
  uint64_t line = 0;  // line of the file where it begins, from 1
};

class TextReader {
 public:
  // Throws ExitCode::missing_input if the file does not exist.
  TextReader(const std::filesystem::path& path, TextOptions options);
  // Returns false at the end of the file. Throws ExitCode::bad_data, which names the file, the line and the byte (after
  // decompression).
  bool next(Document& document);
  uint64_t bytes_read() const { return offset_; }        // bytes, after decompression
  uint64_t replaced_bytes() const { return replaced_; }  // bytes that U+FFFD replaced

 private:
  bool next_line();
  bool next_raw(std::string& text, uint64_t& offset, uint64_t& line);
  void check_utf8(std::string& text, uint64_t offset, uint64_t line);
  void check_length(uint64_t length, uint64_t line) const;
  std::string json_text(const std::string& object, uint64_t line) const;

  std::filesystem::path path_;
  TextOptions options_;
  bool json_ = false;
  std::unique_ptr<ByteSource> source_;
  std::vector<std::byte> buffer_;
  size_t buffer_begin_ = 0;
  size_t buffer_end_ = 0;
  uint64_t offset_ = 0;  // bytes handed out as lines so far
  uint64_t line_number_ = 0;
  std::string line_;  // includes its line feed, if it has one
  uint64_t replaced_ = 0;
};

}  // namespace nibble
