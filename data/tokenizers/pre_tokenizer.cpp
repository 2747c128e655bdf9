#include "data/tokenizers/pre_tokenizer.h"

#include "data/patterns/code_point.h"

namespace nibble {

void Junctions::add(uint32_t left, uint32_t right) {
  if (left < 128 && right < 128) {
    ascii_[left * 128 + right] = true;
  } else {
    others_.insert(uint64_t{left} << 32U | right);
  }
}

bool PatternCutter::next(std::string_view text, size_t begin, bool is_cut, Word& word) const {
  const bool keeps_matches = stage_.behavior == SplitBehavior::isolated || stage_.is_inverted;
  const bool keeps_gaps = stage_.behavior == SplitBehavior::isolated || !stage_.is_inverted;
  SplitPattern::Match match{};
  switch (stage_.pattern.find(text, begin, is_cut, match)) {
    case SplitPattern::Found::open: return false;
    case SplitPattern::Found::none: word = {text.size(), keeps_gaps}; return true;
    case SplitPattern::Found::match: break;
  }
  word = match.begin > begin ? Word{match.begin, keeps_gaps} : Word{match.end, keeps_matches};
  return true;
}

bool JunctionCutter::next(std::string_view text, size_t begin, bool is_cut, Word& word) const {
  auto [left, size] = code_point_at(text, begin);
  size_t at = begin + size;
  for (; at < text.size(); at += size) {
    uint32_t right = 0;
    const auto next = code_point_at(text, at);
    right = next.code;
    size = next.size;
    const bool both_known = known_[left] && known_[right];
    const bool joins =
        both_known ? junctions_.joins(left, right)
                   : never_cut_unknown_ || junctions_.joins(known_[left] ? left : '>', known_[right] ? right : '<');
    if (!joins) {
      word = {at, true};
      return true;
    }
    left = right;
  }
  word = {at, true};
  return !is_cut;
}

bool PreTokenizer::change(const PrefixStage& stage, std::string_view text, bool is_first, std::string& changed) {
  if (!stage.space.empty()) {
    for (const char c : text) {
      if (c == ' ') {
        changed += stage.space;
      } else {
        changed += c;
      }
    }
    text = changed;
  }
  const bool is_wanted = !stage.text.empty() && !(stage.only_first && !is_first) && !text.starts_with(stage.text);
  if (is_wanted) changed = stage.text + std::string(text);
  return is_wanted || !stage.space.empty();
}

std::vector<SplitStage> PreTokenizer::take_last_split() {
  if (stages_.empty()) return {};
  const auto* const split = std::get_if<SplitStage>(&stages_.back());
  if (split == nullptr) return {};
  if (split->behavior != SplitBehavior::isolated && split->behavior != SplitBehavior::removed) return {};
  std::vector<SplitStage> last = {*split};
  stages_.pop_back();
  return last;
}

}  // namespace nibble
