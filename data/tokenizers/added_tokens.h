// Tokens that stand beside the vocabulary of a tokenizer.json. Those that are not special are found in text, as Hugging
// Face's library finds them; special ones are text like any other, but hide others that they overlap, as they do there
// with encode_special_tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nibble {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool is_special = false;
  bool single_word = false;    // only where no letter stands beside it
  bool strips_left = false;    // takes the white space before it
  bool strips_right = false;   // and after it
  bool is_normalized = false;  // is looked for after normalising, and normalised itself
};

class AddedTokenFinder {
 public:
  // `tokens` have their contents as they are to be found.
  explicit AddedTokenFinder(std::vector<AddedToken> tokens = {});

  // Calls visit(text, -1) for each part between tokens and visit(text, id) for each token, in order. Parts are not
  // empty.
  template <class Visit>
  void split(std::string_view text, Visit&& visit) const {
    if (!finds_any_) {
      if (!text.empty()) visit(text, -1);
      return;
    }
    size_t done = 0;
    for (size_t at = 0; at < text.size();) {
      const Found found = find(text, at);
      if (found.token == nullptr) break;
      at = found.end;
      if (found.token->is_special) continue;
      const auto [begin, end] = extent(text, found, done);
      if (end <= begin) continue;
      if (begin > done) visit(text.substr(done, begin - done), -1);
      visit(text.substr(begin, end - begin), found.token->id);
      done = end;
    }
    if (done < text.size()) visit(text.substr(done), -1);
  }

 private:
  struct Found {
    const AddedToken* token;  // null: there is none
    size_t begin, end;
  };
  struct Extent {
    size_t begin, end;  // equal: the token does not count here
  };
  // Returns the first token at or after `at`, of several the longest.
  Found find(std::string_view text, size_t at) const;
  Extent extent(std::string_view text, const Found& found, size_t done) const;

  struct Node {
    int token = -1;
  };
  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::unordered_map<uint64_t, uint32_t> edges_;  // node * 256 + byte -> node
  bool begins_[256] = {};
  bool finds_any_ = false;
};

}  // namespace nibble
