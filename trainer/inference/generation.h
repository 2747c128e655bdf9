// Samples the next token of a text.
#pragma once

#include <cstddef>
#include <cstdint>
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

// Samples the token after `tokens` (at least one). The model sees at most the last sequence_length tokens. Tokens of
// the model's padding, at or above `vocabulary`, are never sampled.
int32_t sample_next(LanguageModel& model, const std::vector<int32_t>& tokens, int64_t vocabulary,
                    const SamplingOptions& options);

// Returns the length of the text without the replacement characters (U+FFFD) at its end. They stand for a character
// whose bytes have not all been generated.
size_t settled_length(std::string_view text);

}  // namespace nibble
