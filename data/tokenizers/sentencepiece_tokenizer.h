// A SentencePiece model: byte-pair encoding with bytes for characters outside the vocabulary.
//
// decode(encode(text)) == text for every valid UTF-8 text: no normalisation, no prefix, no special meaning for any
// string.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace nibble {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  // Takes the bytes of a model. Throws ExitCode::bad_data if it is not a model or does not reproduce text exactly;
  // `name` is for the message.
  SentencePieceTokenizer(std::string model, const std::string& name);
  ~SentencePieceTokenizer() override;

  std::vector<std::vector<int32_t>> encode_all(std::span<const std::string> documents) const override;
  std::string decode(std::span<const int32_t> ids) const override;
  std::vector<uint32_t> token_bytes() const override;

 private:
  void append_encoded(std::string_view text, std::vector<int32_t>& ids) const;

  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  std::vector<int32_t> space_mark_ids_;  // the bytes of U+2581
};

}  // namespace nibble
