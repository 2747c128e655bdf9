// A SentencePiece model.
//
// Models with a token for each byte that neither normalise text nor put a space before it, as nibble trains them, give
// back every valid UTF-8 text: decode(encode(text)) == text. There the character U+2581, SentencePiece's mark for a
// space, is encoded as bytes. Other models are taken with losses(); their ids are those of SentencePiece itself.
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
  // Takes the bytes of a model. Throws ExitCode::bad_data if it is not one, and ExitCode::usage if
  // options.end_of_document must be given or is no token; `name` is for the message.
  SentencePieceTokenizer(std::string model, const std::string& name, const TokenizerOptions& options = {});
  ~SentencePieceTokenizer() override;

  std::vector<std::vector<int32_t>> encode_all(std::span<const std::string> documents) const override;
  std::string decode(std::span<const int32_t> ids) const override;
  std::vector<uint32_t> token_bytes() const override;
  std::vector<std::string> losses() const override { return losses_; }
  std::string file_name() const override { return std::string(file_names.front()); }
  std::string as_tokenizer_json() const override;

 private:
  // Where a long text may be cut without another result.
  enum class Cuts { lines_and_spaces, spaces, nowhere };

  void find_losses();
  void find_cuts();
  bool round_trips(std::string_view text) const;
  std::vector<std::string_view> cut(std::string_view document) const;
  void append_encoded(std::string_view text, bool is_first, std::vector<int32_t>& ids) const;
  void append_exactly(std::string_view text, std::vector<int32_t>& ids) const;
  bool is_matched_by(const std::string& tokenizer_json) const;

  std::string name_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> without_prefix_;  // for what is not the beginning; may be null
  std::vector<int32_t> space_mark_ids_;  // the bytes of U+2581; empty unless the model is exact
  std::vector<std::string> losses_;
  Cuts cuts_ = Cuts::nowhere;
};

}  // namespace nibble
