// A tokenizer of byte-pair encoding: Hugging Face's tokenizer.json or tiktoken's rank file. The ids are those of these
// libraries, with special tokens read as text.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/added_tokens.h"
#include "data/tokenizers/bpe_model.h"
#include "data/tokenizers/normalizer.h"
#include "data/tokenizers/pre_tokenizer.h"
#include "data/tokenizers/tokenizer.h"

namespace nibble {

struct BpeParts {
  AddedTokenFinder raw_tokens;         // found in the text as it is
  Normalizer normalizer;               // of what is between them
  AddedTokenFinder normalized_tokens;  // found in the normalised text
  PreTokenizer pre_tokenizer;
  std::unique_ptr<WordCutter> words;  // cuts the pieces of the pre-tokenizer; null: they are the words
  bool words_cover_text = false;      // text that `words` leaves out is an error
  std::shared_ptr<const BpeModel> model;
  std::vector<std::string> text;  // of each id; empty: the id gives no text
  std::string first_text;         // one that decoding takes away from the beginning
  bool counts_bytes = false;      // the texts of encode(text) have together the size of the text that they decode to
  std::vector<std::string> losses;
  int32_t eos_id = -1;
  std::string file_name;  // tokenizer.json or tokenizer.tiktoken
};

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(std::string file, const TokenizerOptions& options, std::string name, BpeParts parts);

  std::vector<std::vector<int32_t>> encode_all(std::span<const std::string> documents) const override;
  std::string decode(std::span<const int32_t> ids) const override;
  std::vector<uint32_t> token_bytes() const override;
  std::vector<std::string> losses() const override { return parts_.losses; }
  std::string file_name() const override { return parts_.file_name; }
  std::string as_tokenizer_json() const override;

 private:
  class Scratch;       // working memory of a thread, lent by the tokenizer
  class LongDocument;  // encoding one on all threads

  template <class Text, class Id, class BeforeEnd>
  void cut_document(std::string_view document, Text&& text, Id&& id, BeforeEnd&& before_end) const;
  void encode_piece(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const;
  void encode_word(std::string_view text, const Word& word, BpeScratch& scratch, std::vector<int32_t>& ids) const;
  std::vector<int32_t> encode_document(std::string_view document) const;

  std::string name_;
  BpeParts parts_;
  mutable std::mutex mutex_;  // of the scratch
  mutable std::vector<std::shared_ptr<BpeScratch>> scratch_;
};

}  // namespace nibble
