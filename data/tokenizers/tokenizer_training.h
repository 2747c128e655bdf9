// Training a SentencePiece model with the settings that make it lossless.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace nibble {

// The minimum holds 256 bytes, three special ids, line feed, tab, and room for letters and merges.
constexpr uint32_t min_trained_vocab_size = 320;

// The same sentences (valid UTF-8, no line feeds) and size give the same model, byte for byte, on every machine with
// the same SentencePiece. Line feed and tab are tokens of their own. Ids: 0 unknown (never produced), 1 beginning, 2
// end of document. Throws ExitCode::bad_data if the text is too small for the vocabulary.
std::unique_ptr<Tokenizer> train_tokenizer(std::vector<std::string> sentences, uint32_t vocab_size);

}  // namespace nibble
