// Reads the documents of a file: plain text, JSON lines with the text under a key, or a tar archive of such files, each
// as it is or compressed. What a file is, is told by its first bytes. Memory is bounded by the longest document.
//
// Reading and checking are two steps, so that one thread can read while others check: TextReader cuts a file into raw
// documents, and parse_document() makes text of each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/text/byte_source.h"

namespace nibble {

// How a plain text file is cut into documents. A paragraph ends at a line of white space. Documents of lines and
// paragraphs do not contain the line feed that ends them.
enum class DocumentRule : uint8_t { file, line, paragraph };

struct TextOptions {
  DocumentRule documents = DocumentRule::file;
  std::string text_key = "text";
  bool replace_invalid = false;               // bytes that are not UTF-8 become U+FFFD instead of being an error
  uint64_t max_document_bytes = 1ULL << 30U;  // a longer document (or JSON line) is bad
};

// A document as it is in the file.
struct RawDocument {
  std::string text;
  std::shared_ptr<const std::string> file;  // its name, and the member's name of an archive
  uint64_t line = 0;                        // of the file, where the document begins, from 1
  uint64_t offset = 0;                      // of its first byte in the file after decompression
  bool is_json = false;                     // one line of JSON lines
  bool is_too_long = false;                 // its text has not been kept
};

struct Document {
  std::string text;             // valid UTF-8
  uint64_t hash = 0;            // document_hash() of the text
  uint64_t replaced_bytes = 0;  // bytes that U+FFFD replaced
  std::string fault;            // what is bad in it, with file and line; empty if it is good
  std::string remedy;           // what helps against the fault
};

// Makes text of a document. Text of JSON lines is taken as it stands; plain text of nothing but white space is no text.
// A document whose text and fault are empty is to be left out.
Document parse_document(RawDocument raw, const TextOptions& options);

class TextReader {
 public:
  // `name` is what messages call the file. Throws ExitCode::missing_input if the file does not exist, and
  // ExitCode::bad_data, with what was found, if it is neither text nor an archive.
  TextReader(const std::filesystem::path& path, std::string name, TextOptions options);
  // Returns false at the end of the file. Throws ExitCode::bad_data for a damaged compressed file or archive, and for a
  // member that is not text.
  bool next(RawDocument& document);
  uint64_t position() const { return file_->position(); }  // bytes of the file that have been read

 private:
  struct Line {
    bool found = false;
    bool is_too_long = false;
  };
  void open_content(std::unique_ptr<ByteSource> source, std::string name, bool is_member);
  bool next_member();
  bool next_of_content(RawDocument& document);
  bool next_file(RawDocument& document);
  bool next_line(RawDocument& document);
  bool next_paragraph(RawDocument& document);
  bool fill();
  Line append_line(std::string& text);

  TextOptions options_;
  std::string name_;
  FileSource* file_ = nullptr;  // belongs to what reads from it
  std::unique_ptr<TarReader> archive_;
  // What is being read: the file, or a member of the archive.
  std::unique_ptr<ByteSource> content_;
  std::shared_ptr<const std::string> content_name_;
  bool is_json_ = false;
  std::vector<std::byte> buffer_;
  size_t buffer_begin_ = 0;
  size_t buffer_end_ = 0;
  uint64_t offset_ = 0;
  uint64_t line_number_ = 0;
};

}  // namespace nibble
