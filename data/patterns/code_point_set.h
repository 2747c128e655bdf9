// A set of Unicode code points, kept as sorted ranges, and the sets that patterns name: general categories and white
// space. The categories are those of Unicode 16.0 whatever libraries the machine has, so that a text has the same ids
// everywhere. The source of the table is unicode_table.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace nibble {

class CodePointSet {
 public:
  static constexpr uint32_t last_code_point = 0x10FFFF;
  struct Range {
    uint32_t first, last;
    bool operator==(const Range&) const = default;
  };

  CodePointSet() = default;
  explicit CodePointSet(std::vector<Range> ranges);

  void add(uint32_t first, uint32_t last);
  void add(const CodePointSet& other);
  CodePointSet complement() const;
  bool contains(uint32_t code_point) const;
  const std::vector<Range>& ranges() const { return ranges_; }
  bool operator==(const CodePointSet&) const = default;

 private:
  void normalize();
  std::vector<Range> ranges_;  // sorted; two neighbours have a gap between them
};

// Runs of code points that stand in the same sets of a pattern, and their classes: runs that no set tells apart have
// one.
struct CodePointClasses {
  std::vector<uint32_t> starts;   // of the runs
  std::vector<uint16_t> classes;  // of the runs
  size_t count = 1;
};
CodePointClasses classes_of(const std::vector<CodePointSet>& sets);

// Returns the code points of a general category, by its name of one or two letters (L, Lu, ...); nothing if there is no
// such category.
std::optional<CodePointSet> code_points_of_category(std::string_view name);
// The property White_Space: what \s matches.
const CodePointSet& white_space();
// What \w matches in Rust: alphabetic characters, marks, decimal digits, connector punctuation and joiners.
const CodePointSet& word_characters();

// Starts of the runs of equal category over all code points, in order: code point * 32 + index into category_names.
extern const std::span<const uint32_t> category_runs;
extern const std::span<const std::string_view> category_names;

}  // namespace nibble
