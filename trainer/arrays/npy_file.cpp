// Reads NumPy's .npy, versions 1.0 to 3.0. A file holds the magic bytes, the version, the length of the header, the
// header, which is a dictionary as Python prints it, and the elements.
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <string_view>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/little_endian.h"
#include "dist/base/text.h"
#include "trainer/arrays/stored_array.h"

namespace nibble {

namespace {

constexpr std::string_view magic = "\x93NUMPY";
constexpr size_t prefix_bytes = 8;  // magic and version
constexpr uint64_t max_header_bytes = uint64_t{1} << 20;

struct NpyHeader {
  std::optional<std::string> descr;
  std::optional<bool> fortran_order;
  std::optional<std::vector<uint64_t>> shape;
};

// Parses the dictionary {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }; its keys may come in any order.
class HeaderParser {
 public:
  HeaderParser(const std::string& location, std::string_view text) : location_(location), text_(text) {}

  NpyHeader parse() {
    NpyHeader header;
    expect('{');
    while (!accept('}')) {
      parse_member(header);
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    if (!rest().empty() || !header.descr || !header.fortran_order || !header.shape) fail();
    return header;
  }

 private:
  [[noreturn]] void fail() const { fail_array(location_, fmt::format("the header is not NumPy's: {}", shown(text_))); }

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
    if (!accept(character)) fail();
  }

  std::string parse_string() {
    const char quote = accept('\'') ? '\'' : '"';
    if (quote == '"') expect('"');
    const size_t end = text_.find(quote, position_);
    if (end == std::string_view::npos) fail();
    std::string value(text_.substr(position_, end - position_));
    position_ = end + 1;
    return value;
  }

  uint64_t parse_extent() {
    const std::string_view digits = rest();
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc()) fail();
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
        if (extents.size() == 1) fail();  // (3) is a number, not a tuple
        break;
      }
    }
    return extents;
  }

  void parse_member(NpyHeader& header) {
    const std::string key = parse_string();
    expect(':');
    if (key == "descr" && !header.descr) {
      if (rest().starts_with('[')) {
        fail_array(location_, "an array of records", "save one of its fields: numpy.save(path, array[\"field\"])");
      }
      header.descr = parse_string();
    } else if (key == "fortran_order" && !header.fortran_order) {
      header.fortran_order = accept_word("True");
      if (!*header.fortran_order && !accept_word("False")) fail();
    } else if (key == "shape" && !header.shape) {
      header.shape = parse_tuple();
    } else {
      fail();
    }
  }

  const std::string& location_;
  std::string_view text_;
  size_t position_ = 0;
};

StoredDType stored_dtype(const std::string& location, std::string_view descr) {
  const std::string convert = "save array.astype(\"<f4\") instead";
  const std::string_view kind = descr.substr(descr.empty() ? 0 : 1);
  const bool is_float = kind == "f2" || kind == "f4" || kind == "f8";
  if (descr.starts_with('>') && is_float) fail_array(location, "the numbers are big-endian", convert);
  if (descr.starts_with('<') && is_float) {
    return kind == "f2" ? StoredDType::f16 : kind == "f4" ? StoredDType::f32 : StoredDType::f64;
  }
  if (kind == "V2") {
    fail_array(location,
               fmt::format("elements of two bytes without a type (descr {}), which may have been BF16", shown(descr)),
               convert + ", or keep BF16 in a .safetensors file");
  }
  fail_array(location, fmt::format("elements of type {} are not read, only FP16, FP32 and FP64", shown(descr)),
             convert);
}

// Reads prefix and header; `offset` becomes the offset of the first element in the file.
std::string read_header(const InputFile& file, uint64_t& offset) {
  std::array<std::byte, prefix_bytes + 4> prefix{};
  if (file.size() < prefix_bytes + 2) fail_array(file.name(), fmt::format("{} bytes are no .npy file", file.size()));
  file.read(0, std::span(prefix).first(prefix_bytes + 2));
  if (std::memcmp(prefix.data(), magic.data(), magic.size()) != 0) {
    fail_array(file.name(), "not a .npy file: it does not begin with \\x93NUMPY", "save the array with numpy.save");
  }
  const auto major = static_cast<unsigned>(prefix[6]);
  const auto minor = static_cast<unsigned>(prefix[7]);
  if (major < 1 || major > 3 || minor != 0) {
    fail_array(file.name(), fmt::format(".npy version {}.{} is not one of 1.0, 2.0 and 3.0", major, minor),
               "save the array with numpy.save");
  }
  offset = prefix_bytes + (major == 1 ? 2 : 4);
  if (file.size() < offset) fail_array(file.name(), "cut off inside its header");
  file.read(0, std::span(prefix).first(offset));
  const uint64_t length = major == 1 ? load_little_endian<uint16_t>(prefix, prefix_bytes)
                                     : load_little_endian<uint32_t>(prefix, prefix_bytes);
  if (length > file.size() - offset) fail_array(file.name(), "cut off inside its header");
  if (length > max_header_bytes) {
    fail_array(file.name(), fmt::format("a header of {} bytes, more than the {} allowed", length, max_header_bytes));
  }
  std::string text(length, '\0');
  file.read(offset, std::as_writable_bytes(std::span(text)));
  offset += length;
  return text;
}

}  // namespace

LoadedArray load_npy(const std::filesystem::path& path) {
  const InputFile file(path);
  uint64_t offset = 0;
  const std::string text = read_header(file, offset);
  const NpyHeader header = HeaderParser(file.name(), text).parse();
  const StoredArray array{file.name(), path.stem().string(), *header.shape, stored_dtype(file.name(), *header.descr)};
  if (*header.fortran_order) {
    fail_array(file.name(), "the array is in Fortran order", "save numpy.ascontiguousarray(array) instead");
  }
  const uint64_t bytes = stored_bytes(array);
  if (bytes != file.size() - offset) {
    fail_array(file.name(), fmt::format("{} bytes follow the header, but an array of shape [{}] has {}",
                                        file.size() - offset, fmt::join(array.shape, ", "), bytes));
  }
  return read_stored(array, [&](std::span<std::byte> target) {
    file.read(offset, target);
    offset += target.size();
  });
}

}  // namespace nibble
