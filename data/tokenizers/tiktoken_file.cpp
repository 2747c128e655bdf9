#include "data/tokenizers/tiktoken_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>
#include <vector>

#include "data/tokenizers/bpe_tokenizer.h"
#include "data/tokenizers/tokenizer_json_writer.h"
#include "dist/base/error.h"

namespace nibble {
namespace {

constexpr size_t longest_token = 1024;  // bytes; published files have at most 128

struct Published {
  std::string_view name;
  std::vector<size_t> ranks;
  std::string_view pattern;
  std::string_view oniguruma;  // the same for Oniguruma, where $ and possessive intervals are others; empty: `pattern`
};

// Sources: tiktoken's openai_public.py; Meta's tokenizer of Llama 3.
const std::array<Published, 4>& published() {
  static const std::array<Published, 4> list = {{
      {"gpt2",
       {50256, 50280},
       R"('(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s)",
       R"('(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++(?![\s\S])|\s+(?!\S)|\s)"},
      {"cl100k",
       {100256},
       R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n])"
       R"(|\s+(?!\S)|\s)",
       R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++(?![\s\S]))"
       R"(|\s*[\r\n]|\s+(?!\S)|\s)"},
      {"o200k",
       {199998},
       R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
       R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
       R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       {}},
      {"llama3",
       {128000},
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+)"
       R"(|\s+(?!\S)|\s+)",
       {}},
  }};
  return list;
}

// Returns the bytes that base64 stands for; nothing if it is not base64.
std::optional<std::string> from_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  std::string bytes;
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    uint32_t value = 0;
    if (c >= 'A' && c <= 'Z') {
      value = static_cast<uint32_t>(c - 'A');
    } else if (c >= 'a' && c <= 'z') {
      value = static_cast<uint32_t>(c - 'a' + 26);
    } else if (c >= '0' && c <= '9') {
      value = static_cast<uint32_t>(c - '0' + 52);
    } else if (c == '+' || c == '/') {
      value = c == '+' ? 62 : 63;
    } else if (i < text.size() - padding) {
      return std::nullopt;
    }
    bits = bits << 6U | value;
    if (i % 4 != 3) continue;
    for (const unsigned shift : {16U, 8U, 0U}) bytes += static_cast<char>(bits >> shift & 0xFFU);
    bits = 0;
  }
  bytes.resize(bytes.size() - padding);
  return bytes;
}

struct Line {
  std::string token;
  uint32_t rank;
};

std::optional<Line> parse_line(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  auto token = from_base64(line.substr(0, space));
  if (!token) return std::nullopt;
  uint32_t rank = 0;
  const auto [end, error] = std::from_chars(line.data() + space + 1, line.data() + line.size(), rank);
  if (error != std::errc() || end != line.data() + line.size()) return std::nullopt;
  return Line{std::move(*token), rank};
}

[[noreturn]] void fail(const std::string& name, const std::string& what) {
  throw Error(ExitCode::bad_data, fmt::format("{}: {}", name, what), "restore the rank file from a copy");
}

TokenIds read_ranks(std::string_view file, const std::string& name) {
  TokenIds ids;
  std::vector<bool> taken;
  size_t number = 0;
  while (!file.empty()) {
    const size_t end = std::min(file.find('\n'), file.size());
    const std::string_view text = file.substr(0, end);
    file.remove_prefix(std::min(end + 1, file.size()));
    ++number;
    if (text.empty() || text == "\r") continue;
    auto line = parse_line(text);
    if (!line) fail(name, fmt::format("line {} is not a token in base64 and its rank", number));
    if (line->token.size() > longest_token) {
      fail(name, fmt::format("line {} has a token of more than {} bytes", number, longest_token));
    }
    if (line->rank >= Tokenizer::max_vocab_size - 1) {
      fail(name, fmt::format("line {} has the rank {}; the largest vocabulary is {}", number, line->rank,
                             Tokenizer::max_vocab_size));
    }
    if (taken.size() <= line->rank) taken.resize(line->rank + 1);
    if (taken[line->rank]) fail(name, fmt::format("line {} repeats the rank {}", number, line->rank));
    taken[line->rank] = true;
    if (!ids.emplace(std::move(line->token), static_cast<int32_t>(line->rank)).second) {
      fail(name, fmt::format("line {} repeats a token", number));
    }
  }
  return ids;
}

// Two tokens merge if together they are a token, whose rank is that of the merge.
MergeTable merges_of(const TokenIds& ids) {
  struct Split {
    int32_t left, right, whole;
  };
  std::vector<Split> splits;
  for (const auto& [token, id] : ids) {
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const auto left = ids.find(std::string_view(token).substr(0, cut));
      if (left == ids.end()) continue;
      const auto right = ids.find(std::string_view(token).substr(cut));
      if (right != ids.end()) splits.push_back({left->second, right->second, id});
    }
  }
  MergeTable merges(splits.size());
  for (const Split& split : splits) {
    merges.insert(split.left, split.right, {static_cast<uint32_t>(split.whole), split.whole});
  }
  return merges;
}

const Published* published_by_ranks(size_t ranks) {
  for (const Published& entry : published()) {
    if (std::find(entry.ranks.begin(), entry.ranks.end(), ranks) != entry.ranks.end()) return &entry;
  }
  return nullptr;
}

SplitPattern pattern_of(const std::string& name, std::string_view regex) {
  return {translate_pattern(regex, PatternDialect::rust, name), name};
}

const Published* published_by_pattern(std::string_view pattern) {
  for (const Published& entry : published()) {
    if (pattern == entry.name || pattern == entry.pattern) return &entry;
  }
  return nullptr;
}

// Returns the regular expression. `chosen` becomes empty where the file alone gives the same one.
std::string choose_regex(const std::string& name, size_t ranks, std::string& chosen) {
  const Published* const own = published_by_ranks(ranks);
  if (chosen.empty() && own == nullptr) {
    throw Error(ExitCode::usage,
                fmt::format("{} has {} ranks, which is the number of no published file, so its pattern is not known",
                            name, ranks),
                "give --pattern gpt2, cl100k, o200k, llama3 or the regular expression itself");
  }
  if (chosen.empty()) return std::string(own->pattern);
  const Published* const entry = published_by_pattern(chosen);
  if (entry == nullptr) return chosen;
  chosen = entry == own ? std::string() : std::string(entry->name);
  return std::string(entry->pattern);
}

SplitPattern choose_pattern(const std::string& name, size_t ranks, std::string& chosen) {
  const std::string regex = choose_regex(name, ranks, chosen);
  if (published_by_pattern(regex) != nullptr) return pattern_of(name, regex);
  try {
    return pattern_of("--pattern", regex);
  } catch (const Error& error) {
    throw Error(ExitCode::usage, error.what(), error.remedy());
  }
}

// Returns a pattern that means in Oniguruma what `regex` means in Rust; empty if none is known.
std::string in_oniguruma(const std::string& name, const std::string& regex) {
  const Published* const entry = published_by_pattern(regex);
  if (entry != nullptr && !entry->oniguruma.empty()) return std::string(entry->oniguruma);
  const TranslatedPattern meant = translate_pattern(regex, PatternDialect::rust, name);
  try {
    const TranslatedPattern read = translate_pattern(regex, PatternDialect::oniguruma, name);
    if (read.regex == meant.regex && read.classes == meant.classes) return regex;
  } catch (const Error&) {  // Oniguruma would read it otherwise.
  }
  return {};
}

int32_t last_rank(const TokenIds& ids) {
  int32_t last = 0;
  for (const auto& [token, id] : ids) last = std::max(last, id);
  return last;
}

}  // namespace

bool is_tiktoken_file(std::string_view file) {
  const size_t end = std::min(file.find('\n'), file.size());
  return end <= 2 * longest_token && parse_line(file.substr(0, end)).has_value();
}

std::unique_ptr<Tokenizer> load_tiktoken_file(std::string file, const std::string& name,
                                              const TokenizerOptions& options) {
  TokenIds ids = read_ranks(file, name);
  TokenizerOptions needed = options;
  SplitPattern pattern = choose_pattern(name, ids.size(), needed.pattern);
  if (!needed.end_of_document.empty()) {
    throw Error(ExitCode::usage,
                fmt::format("{} names no special tokens; a document ends with the id after the last "
                            "rank",
                            name),
                "leave --end-of-document out");
  }
  BpeParts parts;
  const int32_t last = last_rank(ids);
  parts.text.resize(static_cast<size_t>(last) + 2);
  for (const auto& [token, id] : ids) parts.text[static_cast<size_t>(id)] = token;
  parts.eos_id = last + 1;
  parts.words = std::make_unique<PatternCutter>(
      SplitStage{.pattern = std::move(pattern), .behavior = SplitBehavior::removed, .is_inverted = true});
  parts.words_cover_text = true;
  MergeTable merges = merges_of(ids);
  const auto model =
      std::make_shared<BpeModel>(std::move(ids), std::move(merges), BpeModel::Options{.whole_words = true});
  if (!model->covers_every_text()) fail(name, "not every byte is a token");
  parts.model = model;
  parts.counts_bytes = true;
  parts.file_name = "tokenizer.tiktoken";
  return std::make_unique<BpeTokenizer>(std::move(file), needed, name, std::move(parts));
}

std::string tiktoken_as_json(const std::string& file, const std::string& name, const TokenizerOptions& options) {
  const TokenIds ids = read_ranks(file, name);
  std::string chosen = options.pattern;
  WrittenTokenizer result;
  result.pattern = in_oniguruma(name, choose_regex(name, ids.size(), chosen));
  if (result.pattern.empty()) return {};
  result.whole_words = true;
  result.tokens.resize(static_cast<size_t>(last_rank(ids)) + 2);
  for (const auto& [token, id] : ids) {
    result.tokens[static_cast<size_t>(id)] = {token, WrittenToken::Kind::merged, static_cast<double>(id)};
  }
  result.tokens.back() = {std::string(end_of_document_names.front()), WrittenToken::Kind::special};
  return write_tokenizer_json(result);
}

}  // namespace nibble
