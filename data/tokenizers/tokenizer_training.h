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
// The time that SentencePiece needs grows with the different words, so of words above 48 bytes, which text without
// spaces has, only a part is used where they are many (512 bytes of different ones for each token); a warning says so.
std::unique_ptr<Tokenizer> train_tokenizer(std::vector<std::string> sentences, uint32_t vocab_size);

// Replaces words above 48 bytes (between spaces) by tabs, which no merge crosses, until the different ones that stay
// have about `most_bytes` together; their hashes decide which stay. Returns the bytes of different ones before; where
// that is at most `most_bytes`, nothing changes.
uint64_t mask_long_words(std::vector<std::string>& sentences, uint64_t most_bytes);

}  // namespace nibble
