#include "data/patterns/code_point_set.h"

#include <algorithm>
#include <map>
#include <utility>

namespace nibble {

CodePointSet::CodePointSet(std::vector<Range> ranges) : ranges_(std::move(ranges)) {
  normalize();
}

void CodePointSet::normalize() {
  std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) { return a.first < b.first; });
  std::vector<Range> merged;
  for (const Range& range : ranges_) {
    if (!merged.empty() && range.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, range.last);
    } else {
      merged.push_back(range);
    }
  }
  ranges_ = std::move(merged);
}

void CodePointSet::add(uint32_t first, uint32_t last) {
  ranges_.push_back({first, last});
  normalize();
}

void CodePointSet::add(const CodePointSet& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
  normalize();
}

CodePointSet CodePointSet::complement() const {
  CodePointSet result;
  uint32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.first > next) result.ranges_.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= last_code_point) result.ranges_.push_back({next, last_code_point});
  return result;
}

bool CodePointSet::contains(uint32_t code_point) const {
  const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), code_point,
                                      [](uint32_t value, const Range& range) { return value < range.first; });
  return after != ranges_.begin() && std::prev(after)->last >= code_point;
}

std::optional<CodePointSet> code_points_of_category(std::string_view name) {
  std::vector<CodePointSet::Range> ranges;
  if (name.empty() || name.size() > 2) return std::nullopt;
  for (size_t i = 0; i < category_runs.size(); ++i) {
    if (!category_names[category_runs[i] % 32].starts_with(name)) continue;
    const uint32_t end = i + 1 < category_runs.size() ? category_runs[i + 1] / 32 : CodePointSet::last_code_point + 1;
    ranges.push_back({category_runs[i] / 32, end - 1});
  }
  if (ranges.empty()) return std::nullopt;
  return CodePointSet(std::move(ranges));
}

const CodePointSet& white_space() {
  static const CodePointSet set({{0x9, 0xD},
                                 {0x20, 0x20},
                                 {0x85, 0x85},
                                 {0xA0, 0xA0},
                                 {0x1680, 0x1680},
                                 {0x2000, 0x200A},
                                 {0x2028, 0x2029},
                                 {0x202F, 0x202F},
                                 {0x205F, 0x205F},
                                 {0x3000, 0x3000}});
  return set;
}

const CodePointSet& word_characters() {
  static const CodePointSet set = [] {
    // Joiners, and the symbols that are alphabetic: circled and squared letters.
    CodePointSet result(
        {{0x200C, 0x200D}, {0x24B6, 0x24E9}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}});
    for (const char* category : {"L", "M", "Nd", "Nl", "Pc"}) result.add(*code_points_of_category(category));
    return result;
  }();
  return set;
}

CodePointClasses classes_of(const std::vector<CodePointSet>& sets) {
  CodePointClasses result;
  result.starts.push_back(0);
  for (const CodePointSet& set : sets) {
    for (const auto& range : set.ranges()) {
      result.starts.push_back(range.first);
      if (range.last < CodePointSet::last_code_point) result.starts.push_back(range.last + 1);
    }
  }
  std::sort(result.starts.begin(), result.starts.end());
  result.starts.erase(std::unique(result.starts.begin(), result.starts.end()), result.starts.end());
  result.classes.resize(result.starts.size());
  for (const CodePointSet& set : sets) {
    std::map<std::pair<uint16_t, bool>, uint16_t> numbers;  // of a class, inside the set or outside
    for (size_t run = 0; run < result.starts.size(); ++run) {
      const std::pair part(result.classes[run], set.contains(result.starts[run]));
      result.classes[run] = numbers.try_emplace(part, static_cast<uint16_t>(numbers.size())).first->second;
    }
    result.count = numbers.size();
    if (result.count > 256) break;  // too many
  }
  return result;
}

}  // namespace nibble
