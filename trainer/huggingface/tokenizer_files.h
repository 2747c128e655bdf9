// The tokenizer of a run as Hugging Face's library reads it: tokenizer_config.json with tokenizer.json or
// tokenizer.model.
#pragma once

#include <cstdint>
#include <filesystem>

namespace nibble {

// As config.json and generation_config.json say them. nibble trains on documents that follow the token which ends the
// one before, so a text begins after it, and padding is that token too. config.json must not have pad_token_id: it
// would keep the row of that token from training.
struct SpecialTokenIds {
  int32_t beginning, end, padding;
};

// Writes the files for the tokenizer in `tokenizer` into `directory`, which exists. AutoTokenizer then gives nibble's
// ids: no token is added at the ends, and what reads like a special token is text. `model_max_length` is in tokens.
// Where no tokenizer.json gives the same ids, as for SentencePiece's unigram models, the model is copied and a warning
// says that transformers may read it otherwise; for a pattern that only tiktoken can say no file is written, with a
// warning. The same input gives the same bytes. Throws what Tokenizer::load() throws, and ExitCode::bad_data if the
// tokenizer has more tokens than `model_vocab_size`.
SpecialTokenIds write_tokenizer_files(const std::filesystem::path& tokenizer, uint32_t model_vocab_size,
                                      int64_t model_max_length, const std::filesystem::path& directory);

}  // namespace nibble
