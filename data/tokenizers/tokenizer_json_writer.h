// A tokenizer.json for a tokenizer that comes from another kind of file, so that Hugging Face's library gives the same
// ids and the same text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nibble {

struct WrittenToken {
  enum class Kind : uint8_t {
    none,     // no token has the id
    merged,   // a byte or a character, or what merges make of them
    atom,     // takes no part in merges
    special,  // no text has it, where Hugging Face's library is told to split special tokens
  };
  std::string text;  // what it stands for, spaces as spaces
  Kind kind = Kind::none;
  double rank = 0;  // of a merged one: merges into tokens of lower ranks come first
};

struct WrittenTokenizer {
  std::vector<WrittenToken> tokens;  // by id
  std::string pattern;       // Oniguruma's, cuts text into words that are encoded from bytes; empty: from characters
  bool whole_words = false;  // a word that is a token becomes that token, whatever the merges say
  // The rest is of vocabularies of characters.
  bool byte_fallback = false;  // a character without a token becomes its bytes, <0x00> ... <0xFF>
  std::string unknown;         // the token of a character without token and bytes; may be empty
  std::string prefix;          // put before every text, and taken from the beginning of decoded text
  bool mark_is_space = false;  // U+2581 in a text is read as a space
};

// Any two tokens of kind merged whose texts make a third one's are a merge, as in SentencePiece and in tiktoken. Equal
// tokenizers give equal bytes.
std::string write_tokenizer_json(const WrittenTokenizer& tokenizer);

}  // namespace nibble
