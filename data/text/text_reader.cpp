#include "data/text/text_reader.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "data/file_kind.h"
#include "data/patterns/code_point_set.h"
#include "data/text/document_split.h"
#include "data/text/json_line.h"
#include "dist/base/error.h"
#include "dist/base/log.h"
#include "dist/base/utf8.h"

namespace nibble {
namespace {

constexpr std::array compressed_endings = {".gz", ".zst", ".zstd", ".xz", ".bz2", ".lz4"};
constexpr std::array json_endings = {".jsonl", ".ndjson", ".jl", ".json"};
constexpr std::array text_endings = {".txt", ".text", ".md"};

std::string lower_case_ending(const std::filesystem::path& path) {
  std::string ending = path.extension().string();
  for (char& letter : ending) {
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  }
  return ending;
}

template <size_t Count>
bool is_one_of(const std::array<const char*, Count>& endings, std::string_view ending) {
  return std::find(endings.begin(), endings.end(), ending) != endings.end();
}

bool has_compressed_name(const std::filesystem::path& path) {
  return is_one_of(compressed_endings, lower_case_ending(path));
}

bool is_json_lines(std::filesystem::path path, std::span<const std::byte> start, const std::string& name) {
  while (has_compressed_name(path)) path = path.stem();
  const std::string ending = lower_case_ending(path);
  if (is_one_of(text_endings, ending)) return false;
  const bool has_json_name = is_one_of(json_endings, ending);
  if (has_json_name && !start.empty() && start.front() == std::byte{'['}) {
    throw Error(ExitCode::bad_data, fmt::format("{}: a JSON array, not one object a line", name),
                "write its objects one a line, for instance with jq -c '.[]'");
  }
  return has_json_name || (!start.empty() && start.front() == std::byte{'{'});
}

void strip_line_end(std::string& line) {
  if (line.ends_with('\n')) line.pop_back();
  if (line.ends_with('\r')) line.pop_back();
}

// Returns whether a text is white space and nothing else. Bytes that are not UTF-8 are something else.
bool is_blank(std::string_view text) {
  while (!text.empty()) {
    utf8proc_int32_t character = 0;
    const auto size = static_cast<utf8proc_ssize_t>(std::min<size_t>(text.size(), 4));
    const utf8proc_ssize_t length =
        utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), size, &character);
    if (length <= 0 || !white_space().contains(static_cast<uint32_t>(character))) return false;
    text.remove_prefix(static_cast<size_t>(length));
  }
  return true;
}

std::string_view remedy_of_json(std::string_view line) {
  return line == "{" ? "one object over several lines: write one object a line, for instance with jq -c ."
                     : "every line must be a JSON object with the text as a string; --text-key names its key, and "
                       "--skip-bad leaves bad lines out";
}

}  // namespace

Document parse_document(RawDocument raw, const TextOptions& options) {
  Document document;
  const auto fail = [&](const std::string& reason, std::string_view remedy) {
    document.text.clear();
    document.fault = fmt::format("{}: {}", *raw.file, reason);
    document.remedy = remedy;
    return std::move(document);
  };
  if (raw.is_too_long) {
    return fail(fmt::format("line {}: the document that begins here is longer than {} bytes", raw.line,
                            options.max_document_bytes),
                "cut it, or make every line or paragraph a document (--documents line, --documents paragraph)");
  }
  if (options.replace_invalid) {
    document.replaced_bytes = replace_invalid_utf8(raw.text);
  } else if (const auto bad = find_invalid_utf8(raw.text)) {
    return fail(fmt::format("byte {} is not UTF-8 (document that begins at line {}, value 0x{:02x})", raw.offset + *bad,
                            raw.line, static_cast<unsigned char>(raw.text[*bad])),
                "convert the file to UTF-8, for instance with iconv -f WINDOWS-1252 -t UTF-8, replace such bytes by "
                "U+FFFD with --replace-invalid, or leave such documents out with --skip-bad");
  }
  if (!raw.is_json) {
    if (!is_blank(raw.text)) document.text = std::move(raw.text);
  } else if (!is_blank(raw.text)) {
    std::string fault;
    document.text = text_of_json_line(raw.text, options.text_key, fault);
    if (!fault.empty()) return fail(fmt::format("line {}: {}", raw.line, fault), remedy_of_json(raw.text));
  }
  document.hash = document_hash(document.text);
  return document;
}

TextReader::TextReader(const std::filesystem::path& path, std::string name, TextOptions options)
    : options_(std::move(options)), name_(std::move(name)), buffer_(size_t{1} << 18U) {
  auto file = std::make_unique<FileSource>(path);
  file_ = file.get();
  const bool is_empty = file->size() == 0;
  if (has_compressed_name(name_) && is_empty) {
    throw Error(ExitCode::bad_data, fmt::format("{}: is empty, but its name says that it is compressed", name_),
                "copy or compress the file again");
  }
  auto outer = std::make_unique<PeekableSource>(std::move(file));
  if (has_compressed_name(name_) && file_kind(outer->peek(file_kind_bytes)).use == FileUse::text) {
    log_warning("{}: its name says that it is compressed, but this is text and is read as it is", name_);
  }
  auto source = decompress(std::move(outer), name_);
  if (file_kind(source->peek(file_kind_bytes)).use == FileUse::archive) {
    archive_ = std::make_unique<TarReader>(std::move(source), name_);
  } else {
    open_content(std::move(source), name_, /*is_member=*/false);
  }
}

void TextReader::open_content(std::unique_ptr<ByteSource> source, std::string name, bool is_member) {
  auto content = decompress(std::move(source), name);
  std::span<const std::byte> start = content->peek(file_kind_bytes);
  const FileKind& kind = file_kind(start);
  if (kind.use != FileUse::text) {
    throw Error(ExitCode::bad_data,
                fmt::format("{}: this is {}, not UTF-8 text{}", name, kind.name, is_member ? " (in an archive)" : ""),
                std::string(kind.remedy));
  }
  const size_t mark = byte_order_mark_bytes(start);
  is_json_ = is_json_lines(name, start.subspan(mark), name);
  if (mark > 0) content->read(std::span(buffer_).first(mark));
  content_ = std::move(content);
  content_name_ = std::make_shared<const std::string>(std::move(name));
  buffer_begin_ = buffer_end_ = 0;
  offset_ = mark;
  line_number_ = 0;
}

bool TextReader::next_member() {
  if (archive_ == nullptr) return false;
  content_.reset();
  if (!archive_->next()) return false;
  open_content(archive_->content(), name_ + "/" + archive_->member(), /*is_member=*/true);
  return true;
}

bool TextReader::next(RawDocument& document) {
  while (true) {
    if (content_ != nullptr && next_of_content(document)) {
      document.file = content_name_;
      document.is_json = is_json_;
      return true;
    }
    if (!next_member()) return false;
  }
}

bool TextReader::fill() {
  buffer_begin_ = 0;
  buffer_end_ = content_->read(buffer_);
  return buffer_end_ > 0;
}

// Appends the next line with its line feed. Of a text that becomes too long, no more is kept.
TextReader::Line TextReader::append_line(std::string& text) {
  Line line;
  bool is_whole = false;
  while (!is_whole && (buffer_begin_ < buffer_end_ || fill())) {
    const char* begin = reinterpret_cast<const char*>(buffer_.data()) + buffer_begin_;
    const size_t available = buffer_end_ - buffer_begin_;
    const auto* end = static_cast<const char*>(std::memchr(begin, '\n', available));
    const size_t count = end == nullptr ? available : static_cast<size_t>(end - begin) + 1;
    line.is_too_long |= text.size() + count > options_.max_document_bytes;
    if (!line.is_too_long) text.append(begin, count);
    buffer_begin_ += count;
    offset_ += count;
    line.found = true;
    is_whole = end != nullptr;
  }
  if (line.found) ++line_number_;
  return line;
}

bool TextReader::next_of_content(RawDocument& document) {
  document.text.clear();
  document.offset = offset_;
  document.line = line_number_ + 1;
  document.is_too_long = false;
  if (is_json_ || options_.documents == DocumentRule::line) return next_line(document);
  return options_.documents == DocumentRule::file ? next_file(document) : next_paragraph(document);
}

bool TextReader::next_line(RawDocument& document) {
  const Line line = append_line(document.text);
  document.is_too_long = line.is_too_long;
  strip_line_end(document.text);
  return line.found;
}

bool TextReader::next_file(RawDocument& document) {
  bool is_found = false;
  while (buffer_begin_ < buffer_end_ || fill()) {
    const size_t count = buffer_end_ - buffer_begin_;
    document.is_too_long |= document.text.size() + count > options_.max_document_bytes;
    if (!document.is_too_long) {
      document.text.append(reinterpret_cast<const char*>(buffer_.data()) + buffer_begin_, count);
    }
    buffer_begin_ = buffer_end_;
    offset_ += count;
    is_found = true;
  }
  return is_found;
}

bool TextReader::next_paragraph(RawDocument& document) {
  std::string& text = document.text;
  bool has_text = false;
  while (true) {
    const size_t before = text.size();
    const uint64_t offset = offset_;
    const Line line = append_line(text);
    document.is_too_long |= line.is_too_long;
    if (!line.found) break;
    if (!line.is_too_long && is_blank(std::string_view(text).substr(before))) {
      text.resize(before);
      if (has_text) break;
      continue;
    }
    if (!has_text) {
      document.offset = offset;
      document.line = line_number_;
    }
    has_text = true;
  }
  if (document.is_too_long) text.clear();
  strip_line_end(text);
  return has_text;
}

}  // namespace nibble
