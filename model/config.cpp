#include "model/config.h"

#include <fmt/format.h>

#include <charconv>
#include <string_view>

#include "quant/format/format.h"

namespace nibble {
namespace {

// The limit is above any model that fits a machine and below any overflow in products of two sizes.
constexpr int64_t largest_size = int64_t{1} << 30;

[[noreturn]] void fail(const std::string& key, const std::string& what, const std::string& remedy) {
  throw ModelConfigError(key, what, remedy);
}

[[noreturn]] void fail_pattern(const std::string& what) {
  fail("model.pattern", what, "write a group that is repeated as (*-)x32, for instance");
}

// Reads a pattern with groups from the left.
class PatternReader {
 public:
  explicit PatternReader(std::string_view text) : text_(text) {}

  std::string read_all() {
    std::string blocks = read_sequence(0);
    if (next_ < text_.size()) fail_pattern(fmt::format("model.pattern has a ')' too many at position {}", next_));
    return blocks;
  }

 private:
  static constexpr int deepest_group = 16;

  std::string read_sequence(int depth) {
    std::string blocks;
    while (next_ < text_.size() && text_[next_] != ')') {
      append(blocks, text_[next_] == '(' ? read_group(depth) : std::string(1, text_[next_++]), 1);
    }
    return blocks;
  }

  std::string read_group(int depth) {
    const size_t begin = next_++;
    if (depth == deepest_group) fail_pattern(fmt::format("model.pattern has groups more than {} deep", deepest_group));
    const std::string blocks = read_sequence(depth + 1);
    if (next_ == text_.size())
      fail_pattern(fmt::format("the '(' at position {} of model.pattern is not closed", begin));
    ++next_;
    std::string repeated;
    append(repeated, blocks, read_count(begin));
    return repeated;
  }

  // "x32"
  int64_t read_count(size_t group) {
    int64_t count = 0;
    const char* const end = text_.data() + text_.size();
    if (next_ < text_.size() && text_[next_] == 'x') {
      const auto result = std::from_chars(text_.data() + next_ + 1, end, count);
      if (result.ec == std::errc()) next_ = static_cast<size_t>(result.ptr - text_.data());
    }
    if (count < 1 || count > largest_pattern) {
      fail_pattern(
          fmt::format("the group at position {} of model.pattern is not followed by x and a number from 1 to {}", group,
                      largest_pattern));
    }
    return count;
  }

  static void append(std::string& blocks, const std::string& more, int64_t times) {
    if (static_cast<int64_t>(blocks.size()) + static_cast<int64_t>(more.size()) * times > largest_pattern) {
      fail_pattern(fmt::format("model.pattern has more than {} blocks", largest_pattern));
    }
    for (int64_t i = 0; i < times; ++i) blocks += more;
  }

  std::string_view text_;
  size_t next_ = 0;
};

}  // namespace

std::string expanded_pattern(std::string_view pattern) {
  return PatternReader(pattern).read_all();
}

void check_size(const std::string& key, const std::string& name, int64_t value) {
  if (value < 1 || value > largest_size) {
    fail(key, fmt::format("{} is {}, outside 1 to {}", name, value, largest_size), fmt::format("set {}", name));
  }
}

void check_multiple(const std::string& key, const std::string& name, int64_t value) {
  if (value % block_rows == 0) return;
  fail(key,
       fmt::format("{0} is {1}, not a multiple of {2}: linear layers are quantised in blocks of {2}", name, value,
                   block_rows),
       value < block_rows ? fmt::format("use {}", block_rows)
                          : fmt::format("use {} or {}", value - value % block_rows, round_up(value, block_rows)));
}

void check_matrix(const char* what, int64_t rows, int64_t columns) {
  constexpr int64_t most_elements = int64_t{1} << 40;
  if (rows * columns < most_elements) return;
  fail("", fmt::format("{} would be a matrix of {} x {}: 2^40 elements or more", what, rows, columns),
       "use smaller sizes in the section model");
}

}  // namespace nibble
