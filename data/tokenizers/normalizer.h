// What a tokenizer.json does to text before it is cut: Unicode's normal forms, replacements, a prefix.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "data/patterns/split_pattern.h"

namespace nibble {

enum class NormalForm { nfc, nfd, nfkc, nfkd };

// Returns the text in a normal form, in linear time but for the sorting of marks in a row. The data is that of the
// installed utf8proc, which may know fewer characters than Unicode 16.0.
std::string normal_form(std::string_view text, NormalForm form);

class Normalizer {
 public:
  struct Prepend {
    std::string text;
  };
  struct Replace {
    SplitPattern pattern;
    std::string content;
  };
  using Step = std::variant<NormalForm, Prepend, Replace>;

  Normalizer() = default;
  explicit Normalizer(std::vector<Step> steps) : steps_(std::move(steps)) {}
  bool is_empty() const { return steps_.empty(); }
  // Returns the normalised text: `text` itself or what `buffer` then holds.
  std::string_view apply(std::string_view text, std::string& buffer) const;

 private:
  std::vector<Step> steps_;
};

}  // namespace nibble
