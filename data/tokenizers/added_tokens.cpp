#include "data/tokenizers/added_tokens.h"

#include <algorithm>
#include <utility>

#include "data/patterns/code_point.h"
#include "data/patterns/code_point_set.h"

namespace nibble {

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)), nodes_(1) {
  for (size_t index = 0; index < tokens_.size(); ++index) {
    const AddedToken& token = tokens_[index];
    if (token.content.empty()) continue;
    uint32_t node = 0;
    for (const char byte : token.content) {
      const auto [edge, is_new] = edges_.try_emplace(uint64_t{node} * 256 + static_cast<unsigned char>(byte),
                                                     static_cast<uint32_t>(nodes_.size()));
      if (is_new) nodes_.emplace_back();
      node = edge->second;
    }
    nodes_[node].token = static_cast<int>(index);
    begins_[static_cast<unsigned char>(token.content.front())] = true;
    finds_any_ = finds_any_ || !token.is_special;
  }
}

AddedTokenFinder::Found AddedTokenFinder::find(std::string_view text, size_t at) const {
  for (; at < text.size(); ++at) {
    if (!begins_[static_cast<unsigned char>(text[at])]) continue;
    Found longest{nullptr, at, at};
    uint32_t node = 0;
    for (size_t end = at; end < text.size();) {
      const auto edge = edges_.find(uint64_t{node} * 256 + static_cast<unsigned char>(text[end]));
      if (edge == edges_.end()) break;
      node = edge->second;
      ++end;
      if (nodes_[node].token >= 0) longest = {&tokens_[static_cast<size_t>(nodes_[node].token)], at, end};
    }
    if (longest.token != nullptr) return longest;
  }
  return {nullptr, at, at};
}

AddedTokenFinder::Extent AddedTokenFinder::extent(std::string_view text, const Found& found, size_t done) const {
  const AddedToken& token = *found.token;
  size_t begin = found.begin;
  size_t end = found.end;
  if (token.single_word) {
    const bool joins_left = begin > 0 && word_characters().contains(code_point_before(text, begin).code);
    const bool joins_right = end < text.size() && word_characters().contains(code_point_at(text, end).code);
    if (joins_left || joins_right) return {begin, begin};
  }
  while (token.strips_left && begin > done) {
    const auto [code, size] = code_point_before(text, begin);
    if (!white_space().contains(code)) break;
    begin -= size;
  }
  while (token.strips_right && end < text.size()) {
    const auto [code, size] = code_point_at(text, end);
    if (!white_space().contains(code)) break;
    end += size;
  }
  return {std::max(begin, done), end};
}

}  // namespace nibble
