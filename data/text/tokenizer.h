// Text to token ids and back: byte-pair encoding by SentencePiece, with bytes for characters outside the vocabulary.
//
// decode(encode(text)) == text for every valid UTF-8 text: no normalisation, no prefix, no special meaning for any
// string. Line feed and tab are tokens of their own. Ids: 0 unknown (never produced), 1 beginning, 2 end of document.
// The sources are tokenizer.cpp and, for Tokenizer::train(), tokenizer_training.cpp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dist/base/hash.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace nibble {

class Tokenizer {
 public:
  // The minimum holds 256 bytes, three special ids, line feed, tab, and room for letters and merges.
  static constexpr uint32_t min_vocab_size = 320;
  static constexpr uint32_t max_vocab_size = 1U << 20U;

  // Trains a model. The same sentences (valid UTF-8, no line feeds) and size give the same model, byte for byte, on
  // every machine with the same SentencePiece. Throws ExitCode::bad_data if the text is too small for the vocabulary.
  static Tokenizer train(std::vector<std::string> sentences, uint32_t vocab_size);
  // Throws ExitCode::missing_input if there is no such file, and ExitCode::bad_data if it is not a model or does not
  // reproduce text exactly.
  static Tokenizer load(const std::filesystem::path& path);
  static Tokenizer from_model(std::string model, const std::string& name);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  void save(const std::filesystem::path& path) const;

  // Adds no beginning and no end token. Throws ExitCode::bad_data if the text is not UTF-8.
  std::vector<int32_t> encode(std::string_view text) const;
  // Encodes many documents like encode(), on the compute threads.
  std::vector<std::vector<int32_t>> encode_all(std::span<const std::string> documents) const;
  // Special ids give no text; bytes that are not UTF-8 give U+FFFD. Every id must be in [0, vocab_size).
  std::string decode(std::span<const int32_t> ids) const;

  // Returns for each id how many bytes of text it stands for, 0 for special ids. The sum over encode(text) is the size
  // of the text; the result is empty if this does not hold for the model.
  std::vector<uint32_t> token_bytes() const;

  uint32_t vocab_size() const { return vocab_size_; }
  int32_t eos_id() const { return eos_id_; }
  const Hash128& hash() const { return hash_; }  // XXH3-128 of the model file

 private:
  Tokenizer();
  void append_encoded(std::string_view text, std::vector<int32_t>& ids) const;

  std::string model_;
  Hash128 hash_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  uint32_t vocab_size_ = 0;
  int32_t eos_id_ = -1;
  std::vector<int32_t> space_mark_ids_;  // the bytes of U+2581
};

}  // namespace nibble
