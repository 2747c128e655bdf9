// Samples the next token of a text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "data/tokenizers/tokenizer.h"
#include "model/language_model.h"

namespace nibble {

// Returns the tokens of a text to continue. Those of an empty text are the end of a document: in training, a new one
// comes after it.
std::vector<int32_t> prompt_tokens(const Tokenizer& tokenizer, std::string_view prompt);

struct SamplingOptions {
  double temperature = 0.8;  // 0 = always the most likely token
  double top_p = 0.95;       // sample among the most likely tokens that together have this probability
  uint64_t seed = 0;
};

// Samples from given logits [vocabulary]. The random number is a function of `position` and the seed, so that equal
// inputs give the same token.
int32_t sample_token(const float* logits, int64_t vocabulary, uint64_t position, const SamplingOptions& options);

// Returns where the part of a text of so many tokens begins that the model sees. A text longer than `longest` begins
// anew with the last half of that, and grows to `longest` again, so that a cache serves for many tokens.
size_t window_begin(size_t tokens, size_t longest);

// Continues a text. What the model remembers of it is kept from token to token.
class TextWriter {
 public:
  // `tokens` has at least one. The model, which must be set up for decoding, sees those from window_begin() on. Tokens
  // of its padding, at or above `vocabulary`, are never sampled.
  TextWriter(LanguageModel& model, std::vector<int32_t> tokens, int64_t vocabulary, const SamplingOptions& options);

  // Samples the next token, adds it to the text and returns it.
  int32_t next();
  const std::vector<int32_t>& tokens() const { return tokens_; }

 private:
  LanguageModel& model_;
  std::vector<int32_t> tokens_;
  int64_t vocabulary_;
  SamplingOptions options_;
  std::unique_ptr<TextCache> cache_;
  size_t begin_ = 0;  // first token in the cache
};

// Returns the length of the text without the replacement characters (U+FFFD) at its end. They stand for a character
// whose bytes have not all been generated.
size_t settled_length(std::string_view text);

}  // namespace nibble
