// Hugging Face's tokenizer.json with a model of byte-pair encoding: byte-level as in GPT-2, Llama 3, Qwen and DeepSeek,
// or of characters as in Llama 2, Mistral and Gemma. Whatever the file has that nibble does not implement is an error
// that names it. The post-processor is not used: it only adds special tokens. The sources are tokenizer_json.cpp and,
// for the normalizer and the pre-tokenizer, tokenizer_json_stages.cpp.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/bpe_tokenizer.h"
#include "data/tokenizers/json_element.h"
#include "data/tokenizers/tokenizer.h"

namespace nibble {

// Throws ExitCode::bad_data if the file is damaged or has something that nibble does not support, and ExitCode::usage
// if options.end_of_document must be given or is no token.
std::unique_ptr<Tokenizer> load_tokenizer_json(std::string file, const std::string& name,
                                               const TokenizerOptions& options);

// The stages of a normalizer and of a pre-tokenizer, with what they lose.
struct NormalizerStages {
  std::vector<Normalizer::Step> steps;
  std::vector<std::string> losses;
  bool adds_text = false;  // that decoding cannot tell from the document's own
};
struct PreTokenizerStages {
  std::vector<PreTokenizer::Stage> stages;
  std::vector<std::string> losses;
  bool adds_text = false;
  bool drops_text = false;
  bool is_byte_level = false;
};
NormalizerStages read_normalizer(const JsonElement& normalizer);          // null: none
PreTokenizerStages read_pre_tokenizer(const JsonElement& pre_tokenizer);  // null: none

// Returns the token of a byte-level vocabulary that stands for `bytes`.
std::string byte_level_text(std::string_view bytes);

// The space of SentencePiece, U+2581.
constexpr std::string_view visible_space = "\xE2\x96\x81";

}  // namespace nibble
