#include "data/tokenizers/tokenizer_json_writer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <tuple>

#include "data/patterns/code_point.h"
#include "data/tokenizers/bpe_model.h"
#include "data/tokenizers/tokenizer_json.h"

namespace nibble {
namespace {

using nlohmann::ordered_json;
using Kind = WrittenToken::Kind;

struct WrittenMerge {
  double rank;
  int32_t left, right;
};

// Sorted as they are to be tried. The library tries merges of one rank in this order and not from left to right; that
// makes a difference only where the same token could be made twice of three neighbours, which merges do not leave.
std::vector<WrittenMerge> merges_of(const WrittenTokenizer& tokenizer) {
  TokenIds ids;
  for (size_t id = 0; id < tokenizer.tokens.size(); ++id) {
    const WrittenToken& token = tokenizer.tokens[id];
    if (token.kind == Kind::merged) ids.emplace(token.text, static_cast<int32_t>(id));
  }
  const bool has_bytes = !tokenizer.pattern.empty();
  std::vector<WrittenMerge> merges;
  for (const WrittenToken& token : tokenizer.tokens) {
    if (token.kind != Kind::merged) continue;
    const std::string_view text = token.text;
    const auto step = [&](size_t at) { return has_bytes ? size_t{1} : code_point_size(text[at]); };
    for (size_t cut = text.empty() ? 0 : step(0); cut < text.size(); cut += step(cut)) {
      const auto left = ids.find(text.substr(0, cut));
      if (left == ids.end()) continue;
      const auto right = ids.find(text.substr(cut));
      if (right != ids.end()) merges.push_back({token.rank, left->second, right->second});
    }
  }
  std::sort(merges.begin(), merges.end(), [](const WrittenMerge& a, const WrittenMerge& b) {
    return std::tie(a.rank, a.left, a.right) < std::tie(b.rank, b.left, b.right);
  });
  return merges;
}

ordered_json special_token(size_t id, const std::string& text) {
  return {{"id", id},        {"content", text},     {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

ordered_json replacement(std::string_view from, std::string_view to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

// The stages around the model.
void add_byte_stages(const WrittenTokenizer& tokenizer, ordered_json& root) {
  ordered_json bytes = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  const ordered_json split = {
      {"type", "Split"}, {"pattern", {{"Regex", tokenizer.pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  root["normalizer"] = nullptr;
  root["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", ordered_json::array({split, bytes})}};
  root["post_processor"] = nullptr;
  root["decoder"] = std::move(bytes);
}

void add_character_stages(const WrittenTokenizer& tokenizer, ordered_json& root) {
  ordered_json normalizers = ordered_json::array();
  if (!tokenizer.prefix.empty()) normalizers.push_back({{"type", "Prepend"}, {"prepend", tokenizer.prefix}});
  if (tokenizer.mark_is_space) normalizers.push_back(replacement(visible_space, " "));
  ordered_json decoders = ordered_json::array({{{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (!tokenizer.prefix.empty()) {
    decoders.push_back({{"type", "Strip"}, {"content", tokenizer.prefix}, {"start", 1}, {"stop", 0}});
  }
  root["normalizer"] = nullptr;
  if (!normalizers.empty()) root["normalizer"] = {{"type", "Sequence"}, {"normalizers", std::move(normalizers)}};
  root["pre_tokenizer"] = nullptr;
  root["post_processor"] = nullptr;
  root["decoder"] = {{"type", "Sequence"}, {"decoders", std::move(decoders)}};
}

}  // namespace

std::string write_tokenizer_json(const WrittenTokenizer& tokenizer) {
  const bool has_bytes = !tokenizer.pattern.empty();
  const auto is_special = [](const WrittenToken& token) { return token.kind == Kind::special; };
  const auto written = [&](const WrittenToken& token) {
    return has_bytes && !is_special(token) ? byte_level_text(token.text) : token.text;
  };
  ordered_json added = ordered_json::array();
  ordered_json::object_t vocabulary;  // appended to: looking for each of many keys in it would take minutes
  for (size_t id = 0; id < tokenizer.tokens.size(); ++id) {
    const WrittenToken& token = tokenizer.tokens[id];
    if (token.kind == Kind::none) continue;
    if (is_special(token)) added.push_back(special_token(id, token.text));
    // A special token that comes after the whole vocabulary needs no place in it.
    const bool follows = is_special(token) && has_bytes && vocabulary.size() == id;
    if (!follows) vocabulary.emplace_back(written(token), id);
  }
  ordered_json merges = ordered_json::array();
  for (const WrittenMerge& merge : merges_of(tokenizer)) {
    merges.push_back({written(tokenizer.tokens[static_cast<size_t>(merge.left)]),
                      written(tokenizer.tokens[static_cast<size_t>(merge.right)])});
  }
  ordered_json root = {
      {"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", std::move(added)}};
  has_bytes ? add_byte_stages(tokenizer, root) : add_character_stages(tokenizer, root);
  ordered_json& model = root["model"];
  model = {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", nullptr}, {"continuing_subword_prefix", nullptr}};
  if (!tokenizer.unknown.empty()) model["unk_token"] = tokenizer.unknown;
  model["end_of_word_suffix"] = nullptr;
  model["fuse_unk"] = !tokenizer.unknown.empty();
  model["byte_fallback"] = tokenizer.byte_fallback;
  model["ignore_merges"] = tokenizer.whole_words;
  model["vocab"] = std::move(vocabulary);
  model["merges"] = std::move(merges);
  return root.dump() + "\n";
}

}  // namespace nibble
