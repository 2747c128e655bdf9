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

namespace {

class PatternSearch final : public WordSearch {
 public:
  PatternSearch(const SplitStage& stage, std::string_view text, size_t begin, bool is_cut)
      : search_(stage.pattern, text, begin, is_cut),
        size_(text.size()),
        at_(begin),
        keeps_matches_(stage.behavior == SplitBehavior::isolated || stage.is_inverted),
        keeps_gaps_(stage.behavior == SplitBehavior::isolated || !stage.is_inverted) {}

  bool next(Word& word) override {
    if (at_ == size_) return false;
    if (at_ == match_.end) {  // the match has been handed out
      switch (search_.next(match_)) {
        case SplitPattern::Found::open: return false;
        case SplitPattern::Found::none: match_ = {size_, size_}; break;
        case SplitPattern::Found::match: break;
      }
    }
    word = match_.begin > at_ ? Word{at_, match_.begin, keeps_gaps_} : Word{at_, match_.end, keeps_matches_};
    at_ = word.end;
    return true;
  }

 private:
  SplitPattern::Search search_;
  size_t size_;
  size_t at_;
  SplitPattern::Match match_{at_, at_};  // the last one found
  bool keeps_matches_;
  bool keeps_gaps_;
};

class JunctionSearch final : public WordSearch {
 public:
  JunctionSearch(const JunctionCutter& cutter, std::string_view text, size_t begin, bool is_cut)
      : cutter_(cutter), text_(text), at_(begin), is_cut_(is_cut) {}

  bool next(Word& word) override {
    if (at_ == text_.size()) return false;
    word = {at_, cutter_.end_of_word(text_, at_), true};
    if (is_cut_ && word.end == text_.size()) return false;
    at_ = word.end;
    return true;
  }

 private:
  const JunctionCutter& cutter_;
  std::string_view text_;
  size_t at_;
  bool is_cut_;
};

}  // namespace

std::unique_ptr<WordSearch> PatternCutter::search(std::string_view text, size_t begin, bool is_cut) const {
  return std::make_unique<PatternSearch>(stage_, text, begin, is_cut);
}

std::unique_ptr<WordSearch> JunctionCutter::search(std::string_view text, size_t begin, bool is_cut) const {
  return std::make_unique<JunctionSearch>(*this, text, begin, is_cut);
}

size_t JunctionCutter::end_of_word(std::string_view text, size_t begin) const {
  CodePoint left = code_point_at(text, begin);
  size_t at = begin + left.size;
  while (at < text.size()) {
    const CodePoint right = code_point_at(text, at);
    const bool knows_left = known_[left.code];
    const bool knows_right = known_[right.code];
    if (!(never_cut_unknown_ && !(knows_left && knows_right)) &&
        !junctions_.joins(knows_left ? left.code : '>', knows_right ? right.code : '<')) {
      break;
    }
    left = right;
    at += right.size;
  }
  return at;
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
