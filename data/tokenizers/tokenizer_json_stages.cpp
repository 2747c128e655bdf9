// The normalizer and the pre-tokenizer of a tokenizer.json (tokenizer_json.h).
#include <fmt/format.h>

#include <array>
#include <utility>

#include "data/tokenizers/tokenizer_json.h"
#include "dist/base/utf8.h"

namespace nibble {
namespace {

constexpr char supported_normalizers[] = "NFC, NFD, NFKC, NFKD, Prepend, Replace and a Sequence of these";
constexpr char supported_pre_tokenizers[] = "ByteLevel, Split, Digits, Metaspace and a Sequence of these";
constexpr char adds_space[] = "it puts a space before every document";
constexpr int deepest = 8;
constexpr size_t most_stages = 64;  // a pattern takes a megabyte of memory

// Source: Hugging Face's ByteLevel.
constexpr char byte_level_pattern[] = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

const std::string& utf8_text(const JsonElement& element) {
  if (!is_utf8(element.text())) element.fail_damaged("is not UTF-8");
  return element.text();
}

// A pattern is {"String": literal} or {"Regex": regular expression}.
SplitPattern read_pattern(const JsonElement& pattern) {
  const std::string name = pattern.path();
  if (pattern.has("String")) {
    const std::string& text = utf8_text(pattern.at("String"));
    if (text.empty()) pattern.fail_unsupported("is an empty text", "patterns that match at least one character");
    return {literal_pattern(text, name), name};
  }
  if (!pattern.has("Regex")) pattern.fail_unsupported("has neither String nor Regex", "these two");
  return {translate_pattern(pattern.at("Regex").text(), PatternDialect::oniguruma, name), name};
}

void add_normalizer(const JsonElement& element, int depth, NormalizerStages& result) {
  if (depth > deepest) element.fail_unsupported("is nested so deeply", supported_normalizers);
  if (result.steps.size() == most_stages) element.fail_unsupported("is the 65th", "up to 64 normalizers");
  const std::string& type = element.type();
  static const std::array<std::pair<std::string_view, NormalForm>, 4> forms = {
      {{"NFC", NormalForm::nfc}, {"NFD", NormalForm::nfd}, {"NFKC", NormalForm::nfkc}, {"NFKD", NormalForm::nfkd}}};
  for (const auto& [name, form] : forms) {
    if (type != name) continue;
    result.steps.emplace_back(form);
    result.losses.push_back(fmt::format("it brings text into Unicode's form {}", name));
    return;
  }
  if (type == "Sequence") {
    const JsonElement list = element.at("normalizers");
    for (size_t i = 0; i < list.size_of_array(); ++i) add_normalizer(list.item(i), depth + 1, result);
  } else if (type == "Prepend") {
    const std::string& text = utf8_text(element.at("prepend"));
    result.steps.emplace_back(Normalizer::Prepend{text});
    result.adds_text = result.adds_text || !text.empty();
    const bool is_space = text == visible_space || text == " ";
    result.losses.push_back(is_space ? std::string(adds_space)
                                     : fmt::format("it puts \"{}\" before every document", text));
  } else if (type == "Replace") {
    const std::string& content = utf8_text(element.at("content"));
    result.steps.emplace_back(Normalizer::Replace{read_pattern(element.at("pattern")), content});
    const bool is_space = element.at("pattern").has("String") && element.at("pattern").at("String").text() == " " &&
                          content == visible_space;
    result.losses.push_back(is_space ? std::string("the character U+2581 becomes a space")
                                     : fmt::format("{} replaces text by \"{}\"", element.path(), content));
  } else {
    element.fail_unsupported("is a " + type, supported_normalizers);
  }
}

void add_split(SplitPattern pattern, SplitBehavior behavior, bool is_inverted, PreTokenizerStages& result) {
  result.stages.emplace_back(
      SplitStage{.pattern = std::move(pattern), .behavior = behavior, .is_inverted = is_inverted});
}

void add_named_split(const JsonElement& element, const char* regex, SplitBehavior behavior,
                     PreTokenizerStages& result) {
  const std::string name = element.path();
  add_split({translate_pattern(regex, PatternDialect::oniguruma, name), name}, behavior, false, result);
}

SplitBehavior read_behavior(const JsonElement& behavior) {
  static const std::array<std::pair<std::string_view, SplitBehavior>, 5> names = {
      {{"Removed", SplitBehavior::removed},
       {"Isolated", SplitBehavior::isolated},
       {"MergedWithPrevious", SplitBehavior::merged_with_previous},
       {"MergedWithNext", SplitBehavior::merged_with_next},
       {"Contiguous", SplitBehavior::contiguous}}};
  for (const auto& [name, value] : names) {
    if (behavior.text() == name) return value;
  }
  behavior.fail_unsupported("is " + behavior.text(),
                            "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

void add_metaspace(const JsonElement& element, PreTokenizerStages& result) {
  const std::string& replacement = utf8_text(element.at("replacement"));
  if (replacement != visible_space) element.at("replacement").fail_unsupported("is not U+2581", "U+2581");
  std::string scheme = element.flag("add_prefix_space", true) ? "always" : "never";
  if (element.has("prepend_scheme")) scheme = element.at("prepend_scheme").text();
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    element.at("prepend_scheme").fail_unsupported("is " + scheme, "always, first, never");
  }
  const bool adds = scheme != "never";
  result.stages.emplace_back(
      PrefixStage{.text = adds ? replacement : std::string(), .only_first = scheme == "first", .space = replacement});
  result.adds_text = result.adds_text || adds;
  if (adds) result.losses.emplace_back(adds_space);
  result.losses.emplace_back("the character U+2581 becomes a space");
  if (!element.flag("split", true)) return;
  add_split({literal_pattern(replacement, element.path()), element.path()}, SplitBehavior::merged_with_next, false,
            result);
}

void add_pre_tokenizer(const JsonElement& element, int depth, PreTokenizerStages& result) {
  if (depth > deepest) element.fail_unsupported("is nested so deeply", supported_pre_tokenizers);
  if (result.stages.size() >= most_stages) element.fail_unsupported("is the 65th", "up to 64 stages");
  const std::string& type = element.type();
  if (type == "Sequence") {
    const JsonElement list = element.at("pretokenizers");
    for (size_t i = 0; i < list.size_of_array(); ++i) add_pre_tokenizer(list.item(i), depth + 1, result);
    return;
  }
  if (result.is_byte_level) element.fail_unsupported("stands after ByteLevel", "ByteLevel as the last stage");
  if (type == "ByteLevel") {
    result.is_byte_level = true;
    if (element.flag("add_prefix_space", true)) {
      result.stages.emplace_back(PrefixStage{.text = " ", .only_first = false, .space = {}});
      result.losses.emplace_back(adds_space);
      result.adds_text = true;
    }
    if (element.flag("use_regex", true)) {
      add_named_split(element, byte_level_pattern, SplitBehavior::isolated, result);
    }
  } else if (type == "Split") {
    const SplitBehavior behavior = read_behavior(element.at("behavior"));
    const bool is_inverted = element.flag("invert", false);
    if (behavior == SplitBehavior::removed) {
      result.losses.push_back(fmt::format("{} leaves out the text that its pattern {}", element.path(),
                                          is_inverted ? "does not match" : "matches"));
      result.drops_text = result.drops_text || !is_inverted;
    }
    add_split(read_pattern(element.at("pattern")), behavior, is_inverted, result);
  } else if (type == "Digits") {
    const bool single = element.flag("individual_digits", false);
    add_named_split(element, "\\p{N}", single ? SplitBehavior::isolated : SplitBehavior::contiguous, result);
  } else if (type == "Metaspace") {
    add_metaspace(element, result);
  } else {
    element.fail_unsupported("is a " + type, supported_pre_tokenizers);
  }
}

}  // namespace

NormalizerStages read_normalizer(const JsonElement& normalizer) {
  NormalizerStages result;
  if (!normalizer.value().is_null()) add_normalizer(normalizer, 0, result);
  return result;
}

PreTokenizerStages read_pre_tokenizer(const JsonElement& pre_tokenizer) {
  PreTokenizerStages result;
  if (!pre_tokenizer.value().is_null()) add_pre_tokenizer(pre_tokenizer, 0, result);
  return result;
}

}  // namespace nibble
