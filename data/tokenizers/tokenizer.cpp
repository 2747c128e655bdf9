#include "data/tokenizers/tokenizer.h"

#include <utility>

#include "data/tokenizers/sentencepiece_tokenizer.h"
#include "dist/base/file.h"

namespace nibble {
namespace {

constexpr uint64_t max_file_bytes = 64ULL << 20U;

}  // namespace

Tokenizer::Tokenizer(std::string file) : file_(std::move(file)), hash_(hash128(file_)) {}

std::unique_ptr<Tokenizer> Tokenizer::load(const std::filesystem::path& path) {
  return std::make_unique<SentencePieceTokenizer>(read_file(path, max_file_bytes), path.string());
}

void Tokenizer::save(const std::filesystem::path& path) const {
  write_file(path, file_);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  const std::string document(text);
  return std::move(encode_all(std::span(&document, 1)).front());
}

}  // namespace nibble
