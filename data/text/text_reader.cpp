#include "data/text/text_reader.h"

#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "dist/base/error.h"
#include "dist/base/utf8.h"

namespace nibble {
namespace {

bool is_json(std::filesystem::path path) {
  if (path.extension() == ".zst") path = path.stem();
  if (path.extension() == ".json") {
    throw Error(ExitCode::bad_data, fmt::format("{}: a .json file is not a list of documents", path.string()),
                "write one object a line into a .jsonl file");
  }
  return path.extension() == ".jsonl";
}

void strip_line_end(std::string& line) {
  if (line.ends_with('\n')) line.pop_back();
  if (line.ends_with('\r')) line.pop_back();
}

}  // namespace

TextReader::TextReader(const std::filesystem::path& path, TextOptions options)
    : path_(path),
      options_(std::move(options)),
      json_(is_json(path)),
      source_(open_byte_source(path)),
      buffer_(size_t{1} << 18U) {}

bool TextReader::next_line() {
  line_.clear();
  while (!line_.ends_with('\n')) {
    if (buffer_begin_ == buffer_end_) {
      buffer_begin_ = 0;
      buffer_end_ = source_->read(buffer_);
      if (buffer_end_ == 0) break;
    }
    const char* begin = reinterpret_cast<const char*>(buffer_.data()) + buffer_begin_;
    const size_t available = buffer_end_ - buffer_begin_;
    const auto* end = static_cast<const char*>(std::memchr(begin, '\n', available));
    const size_t count = end == nullptr ? available : static_cast<size_t>(end - begin) + 1;
    check_length(line_.size() + count, line_number_ + 1);
    line_.append(begin, count);
    buffer_begin_ += count;
  }
  offset_ += line_.size();
  if (line_.empty()) return false;
  ++line_number_;
  return true;
}

void TextReader::check_length(uint64_t length, uint64_t line) const {
  if (length <= options_.max_document_bytes) return;
  throw Error(ExitCode::bad_data,
              fmt::format("{}: the document that begins at line {} is longer than {} bytes", path_.string(), line,
                          options_.max_document_bytes),
              "cut it, or make every line or paragraph a document (--documents line, --documents paragraph)");
}

void TextReader::check_utf8(std::string& text, uint64_t offset, uint64_t line) {
  if (options_.replace_invalid) {
    replaced_ += replace_invalid_utf8(text);
  } else if (const auto bad = find_invalid_utf8(text)) {
    throw Error(ExitCode::bad_data,
                fmt::format("{}: byte {} is not UTF-8 (document that begins at line {}, value 0x{:02x})",
                            path_.string(), offset + *bad, line, static_cast<unsigned char>(text[*bad])),
                "convert the file to UTF-8, or replace such bytes by U+FFFD with --replace-invalid");
  }
}

// Reads the next document of plain text, or the next line of JSON, as it is in the file.
bool TextReader::next_raw(std::string& text, uint64_t& offset, uint64_t& line) {
  text.clear();
  const DocumentRule rule = json_ ? DocumentRule::line : options_.documents;
  while (true) {
    const uint64_t line_offset = offset_;
    if (!next_line()) break;
    std::string stripped = line_;
    strip_line_end(stripped);
    if (rule != DocumentRule::file && stripped.empty()) {
      if (text.empty()) continue;
      break;
    }
    if (text.empty()) {
      offset = line_offset;
      line = line_number_;
    }
    if (rule == DocumentRule::line) {
      text = std::move(stripped);
      return true;
    }
    check_length(text.size() + line_.size(), line);
    text += line_;
  }
  if (rule == DocumentRule::paragraph) strip_line_end(text);
  return !text.empty();
}

std::string TextReader::json_text(const std::string& object, uint64_t line) const {
  const auto fail = [&](const std::string& reason) {
    throw Error(ExitCode::bad_data, fmt::format("{}: line {}: {}", path_.string(), line, reason),
                "every line must be a JSON object with the text as a string; --text-key names its key");
  };
  nlohmann::json parsed;
  try {
    parsed = nlohmann::json::parse(object);
  } catch (const nlohmann::json::exception& error) {
    fail(error.what());
  }
  if (!parsed.is_object()) fail("not a JSON object");
  const auto entry = parsed.find(options_.text_key);
  if (entry == parsed.end()) fail(fmt::format("no key \"{}\"", options_.text_key));
  if (!entry->is_string()) fail(fmt::format("the value of \"{}\" is not a string", options_.text_key));
  return entry->get<std::string>();
}

bool TextReader::next(Document& document) {
  uint64_t offset = 0;
  while (next_raw(document.text, offset, document.line)) {
    check_utf8(document.text, offset, document.line);
    if (json_) document.text = json_text(document.text, document.line);
    if (!document.text.empty()) return true;
  }
  return false;
}

}  // namespace nibble
