// Token shards that other trainers wrote, read as they are.
//
// llm.c (and modded-nanogpt, whose files are the same): 256 int32 {magic, version, tokens, 0 ...}, then the tokens.
//   magic 20240520, version 1: GPT-2's ids (vocabulary 50,257), uint16
//   magic 20240801, version 7: Llama 3's ids (vocabulary 128,256), uint32
// Numbers are little-endian. The format has neither hashes nor document ends: the size is checked when the file is
// opened, and every id when it is read. llm.c's programs write a mark before every document: the end-of-text token in
// GPT-2's ids (50256), the beginning-of-text token in Llama 3's (128000).
#pragma once

#include <string>
#include <vector>

#include "data/shards/token_shard.h"
#include "dist/base/file.h"

namespace nibble {

class LlmcShard : public TokenShard {
 public:
  // Returns true if a file with this magic number is one of llm.c's.
  static bool recognises(uint32_t magic);

  // Throws ExitCode::bad_data for a file that is not what its header says.
  explicit LlmcShard(const std::filesystem::path& path);

  const std::string& name() const override { return name_; }
  uint64_t tokens() const override { return tokens_; }
  uint64_t file_bytes() const override { return file_.size(); }
  uint32_t vocab_size() const override { return kind_.vocab_size; }
  uint32_t eos_id() const override { return kind_.eos_id; }
  Hash128 tokenizer() const override { return {}; }
  // Returns a hash of the header, the size, and the first and last 64 KiB. The format has no hash, and reading
  // terabytes at the start of every run would take too long.
  uint64_t identity() const override { return identity_; }
  void read(uint64_t first, std::span<int32_t> ids) override;
  // Documents begin at the marks among `ids`: a mark belongs to the document that it begins.
  void find_document_starts(uint64_t first, std::span<const int32_t> ids, std::span<int32_t> document_starts) override;

  // Returns a text such as "llm.c version 1 (GPT-2 tokens)".
  std::string describe() const;
  uint32_t token_bytes() const { return kind_.token_bytes; }

 private:
  struct Kind {
    uint32_t magic, version, token_bytes, vocab_size, eos_id, first_of_document;
    const char* tokenizer;
  };
  static const Kind* kind_of(uint32_t magic);
  uint64_t identify() const;

  InputFile file_;
  std::string name_;
  Kind kind_{};
  uint64_t tokens_ = 0;
  uint64_t identity_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace nibble
