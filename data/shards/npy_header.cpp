#include "data/shards/npy_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <utility>

#include "dist/base/error.h"
#include "dist/base/little_endian.h"
#include "dist/base/text.h"

namespace nibble {
namespace {

constexpr std::string_view magic = "\x93NUMPY";
constexpr size_t prefix_bytes = 8;  // magic and version
constexpr uint64_t max_header_bytes = uint64_t{1} << 20;

[[noreturn]] void fail(const std::string& name, const std::string& what,
                       const std::string& remedy = "write the file again, or restore it from a copy") {
  throw Error(ExitCode::bad_data, fmt::format("{}: {}", name, what), remedy);
}

struct Members {
  std::optional<std::string> descr;
  std::optional<bool> fortran_order;
  std::optional<std::vector<uint64_t>> shape;
};

// Parses the dictionary {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }; its keys may come in any order.
class HeaderParser {
 public:
  HeaderParser(const std::string& name, std::string_view text) : name_(name), text_(text) {}

  NpyHeader parse() {
    Members header;
    expect('{');
    while (!accept('}')) {
      parse_member(header);
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    if (!rest().empty() || !header.descr || !header.fortran_order || !header.shape) fail_header();
    return {.descr = *header.descr, .fortran_order = *header.fortran_order, .shape = *header.shape};
  }

 private:
  [[noreturn]] void fail_header() const { fail(name_, fmt::format("the header is not NumPy's: {}", shown(text_))); }

  std::string_view rest() {
    const size_t begin = text_.find_first_not_of(" \n", position_);
    position_ = begin == std::string_view::npos ? text_.size() : begin;
    return text_.substr(position_);
  }
  bool accept_word(std::string_view word) {
    if (!rest().starts_with(word)) return false;
    position_ += word.size();
    return true;
  }
  bool accept(char character) { return accept_word({&character, 1}); }
  void expect(char character) {
    if (!accept(character)) fail_header();
  }

  std::string parse_string() {
    const char quote = accept('\'') ? '\'' : '"';
    if (quote == '"') expect('"');
    const size_t end = text_.find(quote, position_);
    if (end == std::string_view::npos) fail_header();
    std::string value(text_.substr(position_, end - position_));
    position_ = end + 1;
    return value;
  }

  uint64_t parse_extent() {
    const std::string_view digits = rest();
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc()) fail_header();
    position_ += static_cast<size_t>(end - digits.data());
    accept('L');  // Python 2 writes it after a long integer
    return value;
  }

  std::vector<uint64_t> parse_tuple() {
    std::vector<uint64_t> extents;
    expect('(');
    while (!accept(')')) {
      extents.push_back(parse_extent());
      if (!accept(',')) {
        expect(')');
        if (extents.size() == 1) fail_header();  // (3) is a number, not a tuple
        break;
      }
    }
    return extents;
  }

  void parse_member(Members& header) {
    const std::string key = parse_string();
    expect(':');
    if (key == "descr" && !header.descr) {
      if (rest().starts_with('[')) {
        fail(name_, "an array of records", "save one of its fields: numpy.save(path, array[\"field\"])");
      }
      header.descr = parse_string();
    } else if (key == "fortran_order" && !header.fortran_order) {
      header.fortran_order = accept_word("True");
      if (!*header.fortran_order && !accept_word("False")) fail_header();
    } else if (key == "shape" && !header.shape) {
      header.shape = parse_tuple();
    } else {
      fail_header();
    }
  }

  const std::string& name_;
  std::string_view text_;
  size_t position_ = 0;
};

}  // namespace

bool begins_as_npy(std::span<const std::byte> start) {
  return start.size() >= magic.size() && std::memcmp(start.data(), magic.data(), magic.size()) == 0;
}

NpyHeader read_npy_header(const std::string& name, uint64_t size,
                          const std::function<void(uint64_t, std::span<std::byte>)>& read) {
  std::array<std::byte, prefix_bytes + 4> prefix{};
  if (size < prefix_bytes + 2) fail(name, fmt::format("{} bytes are no .npy file", size));
  read(0, std::span(prefix).first(prefix_bytes + 2));
  if (!begins_as_npy(prefix)) {
    fail(name, "not a .npy file: it does not begin with \\x93NUMPY", "save the array with numpy.save");
  }
  const auto major = static_cast<unsigned>(prefix[6]);
  const auto minor = static_cast<unsigned>(prefix[7]);
  if (major < 1 || major > 3 || minor != 0) {
    fail(name, fmt::format(".npy version {}.{} is not one of 1.0, 2.0 and 3.0", major, minor),
         "save the array with numpy.save");
  }
  const uint64_t offset = prefix_bytes + (major == 1 ? 2 : 4);
  if (size < offset) fail(name, "cut off inside its header");
  read(0, std::span(prefix).first(offset));
  const uint64_t length = major == 1 ? load_little_endian<uint16_t>(prefix, prefix_bytes)
                                     : load_little_endian<uint32_t>(prefix, prefix_bytes);
  if (length > size - offset) fail(name, "cut off inside its header");
  if (length > max_header_bytes) {
    fail(name, fmt::format("a header of {} bytes, more than the {} allowed", length, max_header_bytes));
  }
  std::string text(length, '\0');
  read(offset, std::as_writable_bytes(std::span(text)));
  NpyHeader header = HeaderParser(name, text).parse();
  header.data_offset = offset + length;
  return header;
}

}  // namespace nibble
