// Text to token ids and back.
//
// A tokenizer is a file: a SentencePiece model, Hugging Face's tokenizer.json or tiktoken's ranks. Tokenizer::load()
// tells by the content which kind it is; each kind is a class of its own in this room. No string in a text has a
// special meaning: what reads like a special token is text.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dist/base/hash.h"

namespace nibble {

// What the file does not say. The options that a tokenizer needed are kept beside the file, in NAME.options, so that
// they have to be given only once.
struct TokenizerOptions {
  std::string pattern;          // of a tiktoken file: gpt2, cl100k, o200k, llama3 or a regular expression; empty: known
  std::string end_of_document;  // the token that ends a document; empty: one of known names
  bool is_empty() const { return pattern.empty() && end_of_document.empty(); }
};

class Tokenizer {
 public:
  static constexpr uint32_t max_vocab_size = 1U << 20U;
  // The names under which tokenizers stand beside their shards, by kind.
  static constexpr std::array<std::string_view, 3> file_names = {"tokenizer.model", "tokenizer.json",
                                                                 "tokenizer.tiktoken"};

  // Options that are not given are those kept beside the file. Throws ExitCode::missing_input if there is no such file,
  // ExitCode::bad_data if nibble cannot use it, and ExitCode::usage if an option must be given or does not fit.
  static std::unique_ptr<Tokenizer> load(const std::filesystem::path& path, const TokenizerOptions& options = {});
  // Returns hash() of the tokenizer in a file, without loading it. Throws what reading throws.
  static Hash128 hash_of_file(const std::filesystem::path& path);
  // Returns the tokenizer's file in a directory of shards: the first of file_names that is there, else the first.
  static std::filesystem::path find_beside(const std::filesystem::path& directory);
  // Returns where the options of the tokenizer in `path` are kept.
  static std::filesystem::path options_path(const std::filesystem::path& path);
  virtual ~Tokenizer() = default;

  // Writes the file, and its options if it has any.
  void save(const std::filesystem::path& path) const;

  // Adds no beginning and no end token. Throws ExitCode::bad_data if the text is not UTF-8.
  std::vector<int32_t> encode(std::string_view text) const;
  // Encodes many documents like encode(), on the compute threads.
  virtual std::vector<std::vector<int32_t>> encode_all(std::span<const std::string> documents) const = 0;
  // Special ids give no text; bytes that are not UTF-8 give U+FFFD. Every id must be in [0, vocab_size).
  virtual std::string decode(std::span<const int32_t> ids) const = 0;

  // Returns for each id how many bytes of text it stands for, 0 for special ids. The sum over encode(text) is the size
  // of the text that these ids decode to; the result is empty if this does not hold for the tokenizer.
  virtual std::vector<uint32_t> token_bytes() const = 0;
  // Says in clauses ("it puts a space before every document") why decode(encode(text)) is not every text. Empty: it is.
  virtual std::vector<std::string> losses() const = 0;
  virtual std::string file_name() const = 0;  // one of file_names
  // Returns a tokenizer.json with which Hugging Face's library gives the ids of encode() and, but for unknown tokens,
  // the text of decode(), if it splits special tokens and adds none; that of a tokenizer.json is the file itself.
  // Empty: none is known.
  virtual std::string as_tokenizer_json() const = 0;

  uint32_t vocab_size() const { return vocab_size_; }  // the largest id + 1
  int32_t eos_id() const { return eos_id_; }           // the end of a document
  const Hash128& hash() const { return hash_; }        // XXH3-128 of the file, followed by that of its options if any

 protected:
  explicit Tokenizer(std::string file, TokenizerOptions options = {});
  Tokenizer(const Tokenizer&) = default;
  const std::string& file() const { return file_; }
  const TokenizerOptions& options() const { return options_; }

  uint32_t vocab_size_ = 0;
  int32_t eos_id_ = -1;

 private:
  std::string file_;
  TokenizerOptions options_;
  Hash128 hash_;
};

// Names of the token that ends a document, in the order in which they are looked for.
constexpr std::array<std::string_view, 4> end_of_document_names = {
    "<|endoftext|>", "<|end_of_text|>", "</s>",
    "<\xEF\xBD\x9C"
    "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};

}  // namespace nibble
