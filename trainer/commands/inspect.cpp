#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/shards/megatron_shard.h"
#include "data/shards/shard.h"
#include "data/shards/token_statistics.h"
#include "data/tokenizers/tokenizer.h"
#include "dist/base/error.h"
#include "dist/base/utf8.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/commands/commands.h"

namespace nibble {
namespace {

constexpr uint64_t max_shown_tokens = 64;  // for each document
constexpr size_t max_shown_bytes = 160;

void print_header(const ShardReader& shard) {
  const ShardHeader& header = shard.header();
  fmt::print("token shard       {}\n", shard.name());
  fmt::print("size              {} bytes\n", header.file_bytes());
  fmt::print("tokens            {} of {} bytes\n", header.tokens, header.token_bytes);
  fmt::print("documents         {}\n", header.documents);
  fmt::print("vocabulary        {}, end of document {}\n", header.vocab_size, header.eos_id);
  fmt::print("blocks            {} of {} bytes\n", header.blocks(), header.block_bytes);
  fmt::print("tokenizer hash    {}\n", to_hex(header.tokenizer));
  fmt::print("header hash       {}\n", to_hex(shard.header_hash()));
}

// Writes control characters as escapes, because they could change the reader's terminal.
std::string printable(std::string_view text) {
  std::string result;
  for (const char character : text.substr(0, code_point_boundary(text, max_shown_bytes))) {
    const auto value = static_cast<unsigned char>(character);
    if (character == '\n') {
      result += "\\n";
    } else if (character == '\t') {
      result += "\\t";
    } else if (value < 0x20 || value == 0x7F) {
      result += fmt::format("\\x{:02x}", value);
    } else {
      result += character;
    }
  }
  return result;
}

void print_document(ShardReader& shard, const Tokenizer& tokenizer, uint64_t document) {
  const auto& ends = shard.document_ends();
  const uint64_t begin = document == 0 ? 0 : ends[document - 1];
  const uint64_t count = ends[document] - begin;
  std::vector<int32_t> ids(std::min(count, max_shown_tokens));
  shard.read(begin, ids);
  fmt::print("document {} ({} tokens): {}{}\n", document, count, printable(tokenizer.decode(ids)),
             count > ids.size() ? " ..." : "");
}

void print_samples(ShardReader& shard, uint64_t samples) {
  const auto path = Tokenizer::find_beside(std::filesystem::path(shard.name()).parent_path());
  if (samples == 0) return;
  if (!std::filesystem::exists(path)) {
    fmt::print("no tokenizer beside the shard: documents are not shown\n");
    return;
  }
  const std::unique_ptr<Tokenizer> loaded = Tokenizer::load(path);
  const Tokenizer& tokenizer = *loaded;
  if (tokenizer.hash() != shard.header().tokenizer) {
    throw Error(ExitCode::bad_data,
                fmt::format("{}: its hash is {}, but the shard beside it was made with {}", path.string(),
                            to_hex(tokenizer.hash()), to_hex(shard.header().tokenizer)),
                "restore the tokenizer that belongs to the shard");
  }
  const uint64_t documents = shard.header().documents;
  const uint64_t shown = std::min(samples, documents);
  for (uint64_t i = 0; i < shown; ++i) print_document(shard, tokenizer, i);
  for (uint64_t i = std::max(shown, documents - shown); i < documents; ++i) print_document(shard, tokenizer, i);
}

void print_statistics(const TokenStatistics& statistics) {
  fmt::print("unigram entropy   {:.4f} nats = {:.4f} bits a token, {} different tokens\n", statistics.entropy_nats(),
             statistics.entropy_bits(), statistics.used());
}

// Inspects a shard without hashes. It is checked by reading it, because reading checks every token id.
void inspect_foreign_shard(TokenShard& shard, const ShardOptions& options) {
  fmt::print("token shard       {}\n", shard.name());
  fmt::print("format            {}\n", shard.format());
  fmt::print("size              {} bytes\n", shard.file_bytes());
  fmt::print("tokens            {} of {} bytes\n", shard.tokens(), shard.token_bytes());
  if (shard.documents()) fmt::print("documents         {}\n", *shard.documents());
  const std::string vocabulary = options.vocab_size == 0 && shard.vocab_size() == ShardHeader::max_vocab_size
                                     ? "not stated"
                                     : fmt::format("{}", shard.vocab_size());
  fmt::print("vocabulary        {}{}\n", vocabulary,
             shard.eos_id() ? fmt::format(", end of document {}", *shard.eos_id()) : "");
  TokenStatistics statistics(shard.vocab_size());
  constexpr uint64_t piece = 1U << 20U;
  std::vector<int32_t> ids;
  int32_t largest = 0;
  for (uint64_t first = 0; first < shard.tokens(); first += ids.size()) {
    ids.resize(std::min(piece, shard.tokens() - first));
    shard.read(first, ids);
    statistics.add(ids);
    largest = std::max(largest, *std::ranges::max_element(ids));
  }
  fmt::print("largest id        {}\n", largest);
  print_statistics(statistics);
  fmt::print("verified          {} and every id; the format has no hashes\n",
             shard.documents() ? "sizes, index" : "size");
}

void inspect_shard(const std::filesystem::path& path, uint64_t samples, const ShardOptions& options) {
  const std::unique_ptr<TokenShard> opened = open_token_shard(path, options);
  auto* const own = dynamic_cast<ShardReader*>(opened.get());
  if (own == nullptr) return inspect_foreign_shard(*opened, options);
  ShardReader& shard = *own;
  print_header(shard);
  TokenStatistics statistics(shard.header().vocab_size);
  std::string first_damage;
  const uint64_t damaged = shard.verify(
      [&](const std::string& text) {
        fmt::print("DAMAGED           {}\n", text);
        if (first_damage.empty()) first_damage = text;
      },
      [&](std::span<const int32_t> ids) { statistics.add(ids); });
  if (damaged > 0) {
    throw Error(ExitCode::bad_data, fmt::format("{} damaged part(s), the first: {}", damaged, first_damage),
                "restore the shard from a copy, or make it again with nibble tokenize");
  }
  print_statistics(statistics);
  fmt::print("verified          header, {} block(s), documents: sound\n", shard.header().blocks());
  print_samples(shard, samples);
}

void run_inspect(const std::filesystem::path& path, uint64_t samples, const ShardOptions& options) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (std::filesystem::is_regular_file(status)) return inspect_shard(path, samples, options);
  if (const auto pair = megatron_pair(path)) return inspect_shard(*pair, samples, options);
  if (!std::filesystem::exists(status)) {
    throw Error(ExitCode::missing_input, fmt::format("{}: no such file or directory", path.string()), "check the path");
  }
  if (std::filesystem::is_directory(status)) return inspect_checkpoint(path);
  throw Error(ExitCode::bad_data, fmt::format("{}: neither a token shard nor a checkpoint", path.string()),
              "name a token shard (docs/formats.md), or a directory checkpoints/step-N");
}

}  // namespace

void add_inspect_options(CLI::App& command) {
  struct Options {
    std::string path;
    uint64_t samples = 1;
    // The vocabulary is not bounded by a model, but its tokens are counted.
    ShardOptions shards{.model_vocab_size = ShardHeader::max_vocab_size};
  };
  auto options = std::make_shared<Options>();
  command.footer("Example:\n  nibble inspect shards/train-00000.bin --samples 2");
  command
      .add_option("PATH", options->path,
                  "A token shard (for Megatron's pairs also their prefix), or a checkpoint directory")
      ->required();
  command.add_option("--samples", options->samples, "Show this many documents from each end of a shard")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--vocab-size", options->shards.vocab_size,
                  "Vocabulary of a shard that does not state it, as data.vocab_size in a run")
      ->check(CLI::Range(1U, ShardHeader::max_vocab_size));
  command
      .add_option("--token-bytes", options->shards.token_bytes,
                  "Width of an id in a file without a header, as data.token_bytes in a run")
      ->check(CLI::IsMember({1, 2, 4}));
  command.final_callback([options] { run_inspect(options->path, options->samples, options->shards); });
}

}  // namespace nibble
