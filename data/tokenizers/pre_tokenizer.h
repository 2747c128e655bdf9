// How text is cut into words before byte-pair encoding: a list of stages, each of which cuts the pieces of the one
// before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "data/patterns/split_pattern.h"

namespace nibble {

enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

struct SplitStage {
  SplitPattern pattern;
  SplitBehavior behavior = SplitBehavior::isolated;
  bool is_inverted = false;  // what lies between matches counts as the matches
};

// Puts `text` before a piece: always, or only at the beginning of the document; after replacing spaces by `space`, if
// that is not empty.
struct PrefixStage {
  std::string text;  // empty: none
  bool only_first = false;
  std::string space;
};

// Which characters a merge joins: no merge reaches over any other pair of neighbours, so text may be cut between them
// without another result.
class Junctions {
 public:
  void add(uint32_t left, uint32_t right);
  bool joins(uint32_t left, uint32_t right) const {
    if (left < 128 && right < 128) return ascii_[left * 128 + right];
    return others_.contains(uint64_t{left} << 32U | right);
  }

 private:
  std::vector<bool> ascii_ = std::vector<bool>(128 * 128);
  std::unordered_set<uint64_t> others_;
};

struct Word {
  size_t begin, end;
  bool is_kept;  // otherwise it is left out
};

// Words of a text, one after the other.
class WordSearch {
 public:
  virtual ~WordSearch() = default;
  // Finds the next word, which begins where the last one ends. Returns false at the end of the text, and where a word
  // depends on what follows a cut text.
  virtual bool next(Word& word) = 0;
};

// The last cut into words. Where a word ends depends only on where it begins and on what follows.
class WordCutter {
 public:
  virtual ~WordCutter() = default;
  // Begins with the word at `begin`. With `is_cut` the text goes on after its end. The text must outlive the search.
  virtual std::unique_ptr<WordSearch> search(std::string_view text, size_t begin, bool is_cut) const = 0;
};

class PatternCutter final : public WordCutter {
 public:
  explicit PatternCutter(SplitStage stage) : stage_(std::move(stage)) {}
  std::unique_ptr<WordSearch> search(std::string_view text, size_t begin, bool is_cut) const override;

 private:
  SplitStage stage_;
};

class JunctionCutter final : public WordCutter {
 public:
  // `known` says of each code point whether it is a symbol. One that is not becomes the tokens of its bytes, which are
  // written <0x00>, or with `never_cut_unknown` something that may join its neighbours.
  JunctionCutter(Junctions junctions, std::vector<bool> known, bool never_cut_unknown)
      : junctions_(std::move(junctions)), known_(std::move(known)), never_cut_unknown_(never_cut_unknown) {}
  std::unique_ptr<WordSearch> search(std::string_view text, size_t begin, bool is_cut) const override;
  // Returns the end of the word at `begin` < text.size(), as far as this text shows it.
  size_t end_of_word(std::string_view text, size_t begin) const;

 private:
  Junctions junctions_;
  std::vector<bool> known_;
  bool never_cut_unknown_;
};

class PreTokenizer {
 public:
  using Stage = std::variant<SplitStage, PrefixStage>;
  PreTokenizer() = default;
  explicit PreTokenizer(std::vector<Stage> stages) : stages_(std::move(stages)) {}

  // Calls piece(text) for each piece, in order. before_end() is called before memory goes away in which earlier pieces
  // lie.
  template <class Piece, class BeforeEnd>
  void cut(std::string_view text, bool is_first, Piece&& piece, BeforeEnd&& before_end) const {
    cut_from(0, text, is_first, piece, before_end);
  }
  // Takes the last stage away and returns it, if it is a split that a WordCutter can do.
  std::vector<SplitStage> take_last_split();

 private:
  template <class Piece, class BeforeEnd>
  void cut_from(size_t index, std::string_view text, bool is_first, Piece&& piece, BeforeEnd&& before_end) const {
    if (text.empty()) return;
    if (index == stages_.size()) return piece(text);
    if (const auto* prefix = std::get_if<PrefixStage>(&stages_[index])) {
      std::string changed;
      if (!change(*prefix, text, is_first, changed)) {
        return cut_from(index + 1, text, is_first, piece, before_end);
      }
      cut_from(index + 1, changed, is_first, piece, before_end);
      return before_end();
    }
    split(std::get<SplitStage>(stages_[index]), text, [&](std::string_view part) {
      cut_from(index + 1, part, is_first && part.data() == text.data(), piece, before_end);
    });
  }
  static bool change(const PrefixStage& stage, std::string_view text, bool is_first, std::string& changed);
  template <class Visit>
  static void split(const SplitStage& stage, std::string_view text, Visit&& visit) {
    // `held` grows until it is known that the next part does not belong to it.
    std::string_view held;
    bool held_matches = false;
    const auto flush = [&] {
      if (!held.empty()) visit(held);
      held = {};
    };
    const auto join = [&](std::string_view part) { held = {held.data(), held.size() + part.size()}; };
    const auto add = [&](std::string_view part, bool matches) {
      if (part.empty()) return;
      const bool had = !held.empty();
      switch (stage.behavior) {
        case SplitBehavior::removed:
          if (!matches) visit(part);
          return;
        case SplitBehavior::isolated: return visit(part);
        case SplitBehavior::contiguous:
          if (had && held_matches == matches) {
            join(part);
          } else {
            flush();
            held = part;
          }
          break;
        case SplitBehavior::merged_with_previous:
          if (had && matches && !held_matches) {
            join(part);
          } else {
            flush();
            held = part;
          }
          break;
        case SplitBehavior::merged_with_next:
          if (had && held_matches && !matches) {
            join(part);
          } else {
            flush();
            held = part;
          }
          break;
      }
      held_matches = matches;
    };
    size_t at = 0;
    SplitPattern::Match match{};
    SplitPattern::Search search(stage.pattern, text, 0, false);
    while (search.next(match) == SplitPattern::Found::match) {
      add(text.substr(at, match.begin - at), stage.is_inverted);
      add(text.substr(match.begin, match.end - match.begin), !stage.is_inverted);
      at = match.end;
    }
    add(text.substr(at), stage.is_inverted);
    flush();
  }

  std::vector<Stage> stages_;
};

}  // namespace nibble
