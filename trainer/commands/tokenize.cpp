#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/shards/shard.h"
#include "data/shards/token_statistics.h"
#include "data/text/document_split.h"
#include "data/text/sentence_sample.h"
#include "data/text/text_reader.h"
#include "data/tokenizers/tokenizer.h"
#include "data/tokenizers/tokenizer_training.h"
#include "dist/base/error.h"
#include "dist/base/log.h"
#include "dist/device/thread_pool.h"
#include "dist/ranks/communicator.h"
#include "trainer/commands/commands.h"
#include "trainer/commands/tokenize_output.h"

namespace nibble {
namespace {

constexpr uint64_t batch_bytes = 8ULL << 20U;      // text that is encoded at once
constexpr uint64_t progress_bytes = 64ULL << 20U;  // text between two progress lines

struct TokenizeOptions {
  std::vector<std::string> inputs;
  std::string output;
  std::string tokenizer;
  uint32_t vocab_size = 0;
  double validation_share = 0.005;
  uint64_t train_bytes = 64ULL << 20U;
  uint64_t shard_tokens = 100'000'000;
  bool validation_tail = false;
  bool overwrite = false;
  TextOptions text;
};

double mebibytes(uint64_t bytes) {
  return static_cast<double>(bytes) / 1048576.0;
}

// Calls visit(document) for every document of all inputs and reports progress.
template <class Visit>
void for_each_document(const TokenizeOptions& options, std::string_view phase, Visit&& visit) {
  uint64_t finished_files_bytes = 0;
  uint64_t reported = 0;
  uint64_t documents = 0;
  uint64_t replaced = 0;
  for (const std::string& input : options.inputs) {
    TextReader reader(input, options.text);
    Document document;
    while (reader.next(document)) {
      ++documents;
      visit(document);
      const uint64_t bytes = finished_files_bytes + reader.bytes_read();
      if (bytes - reported >= progress_bytes) {
        log_info("{}: {:.0f} MiB of text, {} documents", phase, mebibytes(bytes), documents);
        reported = bytes;
      }
    }
    finished_files_bytes += reader.bytes_read();
    replaced += reader.replaced_bytes();
  }
  log_info("{}: {:.1f} MiB of text, {} documents, done", phase, mebibytes(finished_files_bytes), documents);
  if (replaced > 0) log_warning("{}: {} bytes were not UTF-8 and became U+FFFD", phase, replaced);
}

// Makes the first pass over the text: checks it, decides the split, and trains a tokenizer if none is given.
std::unique_ptr<Tokenizer> make_tokenizer(const TokenizeOptions& options, DocumentSplit& split) {
  std::unique_ptr<Tokenizer> given;
  if (!options.tokenizer.empty()) given = Tokenizer::load(options.tokenizer);
  SentenceSample sample(options.train_bytes);
  for_each_document(options, "reading", [&](const Document& document) {
    const uint64_t hash = document_hash(document.text);
    split.add(hash, document.text.size());
    if (!given) sample.add(document.text, hash);
  });
  split.settle();
  if (given) return given;
  log_info("training a tokenizer of {} tokens on {:.1f} MiB", options.vocab_size, mebibytes(sample.bytes()));
  return train_tokenizer(sample.take(split), options.vocab_size);
}

// Makes the second pass over the text: encodes documents in batches and writes each to its side of the split.
class Encoder {
 public:
  Encoder(const std::filesystem::path& folder, uint64_t shard_tokens, const Tokenizer& tokenizer,
          const DocumentSplit& split)
      : tokenizer_(tokenizer),
        split_(split),
        train_(folder, "train", format(tokenizer), shard_tokens),
        validation_(folder, "validation", format(tokenizer), shard_tokens),
        statistics_(tokenizer.vocab_size()) {}

  void add(const Document& document) {
    const std::string& text = document.text;
    const size_t for_training = split_.training_bytes(document_hash(text), text);
    if (for_training > 0) pending_.push_back(text.substr(0, for_training));
    if (for_training > 0) held_out_.push_back(false);
    if (for_training < text.size()) pending_.push_back(text.substr(for_training));
    if (for_training < text.size()) held_out_.push_back(true);
    pending_bytes_ += text.size();
    if (pending_bytes_ >= batch_bytes) flush();
  }

  void flush() {
    const auto encoded = tokenizer_.encode_all(pending_);
    for (size_t i = 0; i < pending_.size(); ++i) {
      (held_out_[i] ? validation_ : train_).add_document(encoded[i]);
      bytes_ += pending_[i].size();
      if (held_out_[i]) continue;
      statistics_.add(encoded[i]);
      statistics_.add(static_cast<uint32_t>(tokenizer_.eos_id()), 1);
    }
    pending_.clear();
    held_out_.clear();
    pending_bytes_ = 0;
  }

  void publish() {
    train_.publish();
    validation_.publish();
  }

  void print_summary() const {
    const uint64_t documents = train_.documents() + validation_.documents();
    const uint64_t tokens = train_.tokens() + validation_.tokens();
    fmt::print("documents         {} ({} train, {} validation)\n", documents, train_.documents(),
               validation_.documents());
    fmt::print("tokens            {} ({} train, {} validation)\n", tokens, train_.tokens(), validation_.tokens());
    fmt::print("shards            {} train, {} validation\n", train_.shards(), validation_.shards());
    fmt::print("vocabulary        {} ({} occur)\n", tokenizer_.vocab_size(), statistics_.used());
    fmt::print("bytes per token   {:.3f}\n", static_cast<double>(bytes_) / static_cast<double>(tokens));
    fmt::print("unigram entropy   {:.4f} nats = {:.4f} bits a token (the loss of knowing only the frequencies)\n",
               statistics_.entropy_nats(), statistics_.entropy_bits());
    fmt::print("tokenizer hash    {}\n", to_hex(tokenizer_.hash()));
  }

 private:
  static ShardHeader format(const Tokenizer& tokenizer) {
    ShardHeader header;
    header.vocab_size = tokenizer.vocab_size();
    header.eos_id = static_cast<uint32_t>(tokenizer.eos_id());
    header.tokenizer = tokenizer.hash();
    return header;
  }

  const Tokenizer& tokenizer_;
  const DocumentSplit& split_;
  ShardSeries train_;
  ShardSeries validation_;
  TokenStatistics statistics_;        // of the training tokens
  std::vector<std::string> pending_;  // documents, or the two parts of one
  std::vector<bool> held_out_;        // of each of them
  uint64_t pending_bytes_ = 0;
  uint64_t bytes_ = 0;
};

// Warns where the text that is held out is far from what was asked for, as it must be with few documents.
void warn_of_share(const TokenizeOptions& options, const DocumentSplit& split) {
  const double share = split.held_out_share();
  const double asked = options.validation_share;
  if (asked == 0 || (share <= 2 * asked && share >= asked / 2)) return;
  log_warning("{:.3g} % of the text is held out for validation, asked for was {:.3g} % (--validation-share): {}",
              100 * share, 100 * asked,
              options.validation_tail ? "the longest document is too short; leave --validation-tail out"
                                      : "documents are few or unequal; hold out the end of the longest one "
                                        "(--validation-tail), or give more documents (--documents line or paragraph)");
}

void check(const TokenizeOptions& options) {
  if (options.tokenizer.empty() == (options.vocab_size == 0)) {
    throw Error(ExitCode::usage, "tokenize needs either --vocab-size or --tokenizer",
                "train a tokenizer with --vocab-size 4096, or reuse one with --tokenizer FILE");
  }
  if (options.validation_tail && options.validation_share == 0) {
    throw Error(ExitCode::usage, "--validation-tail with --validation-share 0 holds nothing out",
                "give a share such as 0.005, or leave --validation-tail out");
  }
  const LaunchedTasks launched = launched_tasks();
  if (launched.count > 1) {
    throw Error(ExitCode::usage,
                fmt::format("nibble tokenize is one process, but a launcher started {} tasks or more ({} says so)",
                            launched.count, launched.variable),
                "start it without mpirun or srun, or with srun --ntasks=1; it uses all cores of the machine by itself");
  }
}

void run_tokenize(const TokenizeOptions& options) {
  check(options);
  TokenizeOutput output(options.output, options.overwrite, options.tokenizer);
  set_compute_threads(available_threads(1));
  DocumentSplit split(options.validation_share, options.validation_tail ? HeldOut::tail : HeldOut::documents);
  const std::unique_ptr<Tokenizer> made = make_tokenizer(options, split);
  const Tokenizer& tokenizer = *made;
  warn_of_share(options, split);
  Encoder encoder(output.folder(), options.shard_tokens, tokenizer, split);
  for_each_document(options, "encoding", [&](const Document& document) { encoder.add(document); });
  encoder.flush();
  encoder.publish();
  tokenizer.save(output.folder() / "tokenizer.model");
  output.publish();
  encoder.print_summary();
}

}  // namespace

void add_tokenize_options(CLI::App& command) {
  auto options = std::make_shared<TokenizeOptions>();
  command.footer(
      "Example:\n  nibble tokenize data/sample/state_of_the_union.txt.zst --documents line --vocab-size 4096 --output "
      "shards");
  command
      .add_option("INPUT", options->inputs,
                  "Text files: NAME.jsonl holds one object a line, other names plain text; .zst of either")
      ->required();
  command.add_option("-o,--output", options->output, "Directory for train-*.bin, validation-*.bin and tokenizer.model")
      ->required();
  command.add_option("--vocab-size", options->vocab_size, "Train a tokenizer with this many tokens")
      ->check(CLI::Range(min_trained_vocab_size, Tokenizer::max_vocab_size));
  command.add_option("--tokenizer", options->tokenizer, "Use this tokenizer.model instead of training one");
  static const std::map<std::string, DocumentRule> rules{
      {"file", DocumentRule::file}, {"line", DocumentRule::line}, {"paragraph", DocumentRule::paragraph}};
  command
      .add_option_function<std::string>(
          "--documents", [options](const std::string& name) { options->text.documents = rules.at(name); },
          "What a document of plain text is: file, line, paragraph")
      ->check(CLI::IsMember(rules).description(""))
      ->type_name("RULE")
      ->default_str("file");
  command.add_option("--text-key", options->text.text_key, "Key of the text in JSON lines")->capture_default_str();
  command
      .add_option("--validation-share", options->validation_share,
                  "Share of the text held out: documents chosen by their hash")
      ->check(CLI::Range(0.0, 0.999999))
      ->capture_default_str();
  command.add_flag("--validation-tail", options->validation_tail,
                   "Hold out the end of the longest document instead of whole documents");
  command
      .add_option("--train-bytes", options->train_bytes, "Train the tokenizer on at most this much text (64MB, 1GB)")
      ->transform(CLI::AsSizeValue(false))
      ->default_str("64MB");
  command.add_option("--shard-tokens", options->shard_tokens, "Start another shard after this many tokens")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_flag("--replace-invalid", options->text.replace_invalid, "Replace bytes that are not UTF-8 by U+FFFD");
  command.add_flag("--overwrite", options->overwrite, "Replace shards and tokenizer that nibble tokenize wrote there");
  command.final_callback([options] { run_tokenize(*options); });
}

}  // namespace nibble
