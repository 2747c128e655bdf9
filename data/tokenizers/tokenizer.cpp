#include "data/tokenizers/tokenizer.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "data/tokenizers/sentencepiece_tokenizer.h"
#include "data/tokenizers/tiktoken_file.h"
#include "data/tokenizers/tokenizer_json.h"
#include "dist/base/error.h"
#include "dist/base/file.h"

namespace nibble {
namespace {

constexpr uint64_t max_file_bytes = 64ULL << 20U;
constexpr uint64_t max_options_bytes = 64ULL << 10U;

std::string options_text(const TokenizerOptions& options) {
  nlohmann::ordered_json root;
  if (!options.pattern.empty()) root["pattern"] = options.pattern;
  if (!options.end_of_document.empty()) root["end_of_document"] = options.end_of_document;
  return root.dump() + "\n";
}

// Returns the options kept beside a tokenizer; empty ones if there is no such file.
TokenizerOptions kept_options(const std::filesystem::path& tokenizer) {
  const std::filesystem::path path = Tokenizer::options_path(tokenizer);
  TokenizerOptions options;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return options;
  try {
    const nlohmann::json root = nlohmann::json::parse(read_file(path, max_options_bytes));
    for (const auto& [key, value] : root.items()) {
      if (key != "pattern" && key != "end_of_document") throw Error(ExitCode::bad_data, "unknown key " + key);
      (key == "pattern" ? options.pattern : options.end_of_document) = value.get<std::string>();
    }
  } catch (const std::exception& error) {
    throw Error(ExitCode::bad_data, fmt::format("{} is damaged: {}", path.string(), error.what()),
                "restore it from a copy, or remove it and name the options again");
  }
  return options;
}

Hash128 hash_of(std::string_view file, const TokenizerOptions& options) {
  return options.is_empty() ? hash128(file) : hash128(to_hex(hash128(file)) + options_text(options));
}

bool is_json(std::string_view file) {
  const size_t begin = file.find_first_not_of(" \t\r\n");
  return begin != std::string_view::npos && file[begin] == '{';
}

}  // namespace

Tokenizer::Tokenizer(std::string file, TokenizerOptions options)
    : file_(std::move(file)), options_(std::move(options)), hash_(hash_of(file_, options_)) {}

std::filesystem::path Tokenizer::options_path(const std::filesystem::path& path) {
  return path.string() + ".options";
}

Hash128 Tokenizer::hash_of_file(const std::filesystem::path& path) {
  return hash_of(read_file(path, max_file_bytes), kept_options(path));
}

std::filesystem::path Tokenizer::find_beside(const std::filesystem::path& directory) {
  std::error_code ignored;
  for (const std::string_view name : file_names) {
    if (std::filesystem::exists(directory / name, ignored)) return directory / name;
  }
  return directory / file_names.front();
}

std::unique_ptr<Tokenizer> Tokenizer::load(const std::filesystem::path& path, const TokenizerOptions& options) {
  std::string file = read_file(path, max_file_bytes);
  TokenizerOptions all = kept_options(path);
  if (!options.pattern.empty()) all.pattern = options.pattern;
  if (!options.end_of_document.empty()) all.end_of_document = options.end_of_document;
  if (is_tiktoken_file(file)) return load_tiktoken_file(std::move(file), path.string(), all);
  if (!all.pattern.empty()) {
    throw Error(ExitCode::usage, fmt::format("{} is no tiktoken file and has its own pattern", path.string()),
                "leave --pattern out");
  }
  if (is_json(file)) return load_tokenizer_json(std::move(file), path.string(), all);
  return std::make_unique<SentencePieceTokenizer>(std::move(file), path.string(), all);
}

void Tokenizer::save(const std::filesystem::path& path) const {
  write_file(path, file_);
  if (!options_.is_empty()) write_file(options_path(path), options_text(options_));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  const std::string document(text);
  return std::move(encode_all(std::span(&document, 1)).front());
}

}  // namespace nibble
