// Text to token ids and back.
//
// A tokenizer is a file. Tokenizer::load() tells by the content which kind it is; each kind is a class of its own in
// this room. No string in a text has a special meaning: what reads like a special token is text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dist/base/hash.h"

namespace nibble {

class Tokenizer {
 public:
  static constexpr uint32_t max_vocab_size = 1U << 20U;

  // Throws ExitCode::missing_input if there is no such file, and ExitCode::bad_data if nibble cannot use it.
  static std::unique_ptr<Tokenizer> load(const std::filesystem::path& path);
  virtual ~Tokenizer() = default;

  void save(const std::filesystem::path& path) const;

  // Adds no beginning and no end token. Throws ExitCode::bad_data if the text is not UTF-8.
  std::vector<int32_t> encode(std::string_view text) const;
  // Encodes many documents like encode(), on the compute threads.
  virtual std::vector<std::vector<int32_t>> encode_all(std::span<const std::string> documents) const = 0;
  // Special ids give no text; bytes that are not UTF-8 give U+FFFD. Every id must be in [0, vocab_size).
  virtual std::string decode(std::span<const int32_t> ids) const = 0;

  // Returns for each id how many bytes of text it stands for, 0 for special ids. The sum over encode(text) is the size
  // of the text; the result is empty if this does not hold for the tokenizer.
  virtual std::vector<uint32_t> token_bytes() const = 0;

  uint32_t vocab_size() const { return vocab_size_; }
  int32_t eos_id() const { return eos_id_; }     // the end of a document
  const Hash128& hash() const { return hash_; }  // XXH3-128 of the file

 protected:
  explicit Tokenizer(std::string file);
  Tokenizer(const Tokenizer&) = default;
  const std::string& file() const { return file_; }

  uint32_t vocab_size_ = 0;
  int32_t eos_id_ = -1;

 private:
  std::string file_;
  Hash128 hash_;
};

}  // namespace nibble
