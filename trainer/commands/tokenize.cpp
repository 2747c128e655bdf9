#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "data/text/document_split.h"
#include "data/text/sentence_sample.h"
#include "data/tokenizers/tokenizer.h"
#include "data/tokenizers/tokenizer_training.h"
#include "dist/base/error.h"
#include "dist/base/log.h"
#include "dist/device/thread_pool.h"
#include "dist/ranks/communicator.h"
#include "trainer/commands/commands.h"
#include "trainer/tokenize/tokenize_encoder.h"
#include "trainer/tokenize/tokenize_output.h"
#include "trainer/tokenize/tokenize_text.h"

namespace nibble {
namespace {

// Another number lets a new version ignore what an older one has left half done.
constexpr int format_of_kept_work = 1;

struct TokenizeOptions {
  std::vector<std::string> inputs;
  std::string output;
  std::string tokenizer;
  TokenizerOptions tokenizer_options;
  uint32_t vocab_size = 0;
  double validation_share = 0.005;
  uint64_t train_bytes = 64ULL << 20U;
  uint64_t shard_tokens = 100'000'000;
  bool validation_tail = false;
  bool overwrite = false;
  uint64_t most_bad = 0;
  TextOptions text;
};

nlohmann::json to_json(const DocumentSplit::Decision& decision) {
  return {{"tail", decision.held_out == HeldOut::tail},
          {"limit", decision.limit},
          {"chosen", decision.chosen},
          {"tail_bytes", decision.tail_bytes},
          {"longest_hash", decision.longest_hash},
          {"longest_bytes", decision.longest_bytes},
          {"documents", decision.documents},
          {"bytes", decision.bytes},
          {"held_out_bytes", decision.held_out_bytes}};
}

DocumentSplit::Decision decision_of(const nlohmann::json& json) {
  return {.held_out = json.at("tail").get<bool>() ? HeldOut::tail : HeldOut::documents,
          .limit = json.at("limit"),
          .chosen = json.at("chosen"),
          .tail_bytes = json.at("tail_bytes"),
          .longest_hash = json.at("longest_hash"),
          .longest_bytes = json.at("longest_bytes"),
          .documents = json.at("documents"),
          .bytes = json.at("bytes"),
          .held_out_bytes = json.at("held_out_bytes")};
}

// Identifies everything on which the output depends.
std::string call_of(const TokenizeOptions& options, const std::vector<TextInput>& inputs, const Tokenizer* given) {
  const std::string tokenizer = given == nullptr ? "" : to_hex(given->hash());
  const nlohmann::json call = {{"format", format_of_kept_work},
                               {"inputs", identify(inputs)},
                               {"documents", options.text.documents},
                               {"text_key", options.text.text_key},
                               {"replace_invalid", options.text.replace_invalid},
                               {"most_bad", options.most_bad},
                               {"tokenizer", tokenizer},
                               {"vocab_size", options.vocab_size},
                               {"train_bytes", options.train_bytes},
                               {"validation_share", options.validation_share},
                               {"validation_tail", options.validation_tail},
                               {"shard_tokens", options.shard_tokens}};
  return to_hex(hash128(call.dump()));
}

struct FirstPass {
  std::unique_ptr<Tokenizer> tokenizer;
  DocumentSplit split;
};

// Makes the first pass over the text: checks it, decides the split, and trains a tokenizer if none is given.
FirstPass make_first_pass(const TokenizeOptions& options, const TextJob& job, std::unique_ptr<Tokenizer> given) {
  DocumentSplit split(options.validation_share, options.validation_tail ? HeldOut::tail : HeldOut::documents);
  SentenceSample sample(options.train_bytes);
  read_text(job, "reading", BadDocuments::listed, [&](std::span<const Document> documents) {
    for (const Document& document : documents) {
      split.add(document.hash, document.text.size());
      if (!given) sample.add(document.text, document.hash);
    }
  });
  split.settle();
  if (given) return {std::move(given), std::move(split)};
  log_info("training a tokenizer of {} tokens on {:.1f} MiB", options.vocab_size,
           static_cast<double>(sample.bytes()) / 1048576.0);
  std::unique_ptr<Tokenizer> trained = train_tokenizer(sample.take(split), options.vocab_size);
  return {std::move(trained), std::move(split)};
}

// Returns what the same call had found out before it was stopped, or finds it out.
FirstPass first_pass(const TokenizeOptions& options, const TextJob& job, TokenizeOutput& output, bool may_keep,
                     std::unique_ptr<Tokenizer> given) {
  if (output.kept()) {
    log_info("going on with what the same command had done when it was stopped");
    return {Tokenizer::load(Tokenizer::find_beside(output.folder())),
            DocumentSplit(decision_of(nlohmann::json::parse(*output.kept())))};
  }
  FirstPass pass = make_first_pass(options, job, std::move(given));
  pass.tokenizer->save(output.folder() / pass.tokenizer->file_name());
  if (may_keep) output.keep(to_json(pass.split.decision()).dump());
  return pass;
}

// Returns the tokenizer that --tokenizer names, null if there is none, and says what it does to text.
std::unique_ptr<Tokenizer> load_given(const TokenizeOptions& options) {
  if (options.tokenizer.empty()) return nullptr;
  std::unique_ptr<Tokenizer> tokenizer = Tokenizer::load(options.tokenizer, options.tokenizer_options);
  const std::vector<std::string> losses = tokenizer->losses();
  if (losses.empty()) return tokenizer;
  log_warning("{} does not give back every text as it was: {}{}", options.tokenizer, fmt::join(losses, "; "),
              tokenizer->token_bytes().empty() ? ". There will be no bits per byte" : "");
  return tokenizer;
}

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
  if (options.tokenizer.empty() && !options.tokenizer_options.is_empty()) {
    throw Error(ExitCode::usage, "--pattern and --end-of-document belong to --tokenizer",
                "leave them out; a tokenizer that is trained here needs neither");
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
  set_compute_threads(available_threads(1));
  TextJob job = {.inputs = find_text_inputs(options.inputs), .options = options.text, .most_bad = options.most_bad};
  const bool may_keep = !has_streams(job.inputs);
  std::unique_ptr<Tokenizer> given = load_given(options);
  TokenizeOutput output(options.output, options.overwrite, given.get(), call_of(options, job.inputs, given.get()));
  store_streams(job.inputs, output.scratch());
  const auto [tokenizer, split] = first_pass(options, job, output, may_keep, std::move(given));
  warn_of_share(options, split);
  TokenizeEncoder encoder(output.folder(), options.shard_tokens, *tokenizer, split);
  const TextTotals totals = read_text(job, "encoding", BadDocuments::counted,
                                      [&](std::span<const Document> documents) { encoder.add(documents); });
  encoder.finish();
  output.publish();
  fmt::print("{}", encoder.summary());
  if (options.most_bad > 0) fmt::print("left out          {} bad documents\n", totals.bad);
}

// --skip-bad N|all
uint64_t most_bad_of(const std::string& text) {
  if (text == "all") return UINT64_MAX;
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw CLI::ValidationError("--skip-bad", fmt::format("'{}' is neither a number nor all", text));
  }
  return number;
}

}  // namespace

void add_tokenize_options(CLI::App& command) {
  auto options = std::make_shared<TokenizeOptions>();
  command.footer(
      "Example:\n  nibble tokenize data/sample/state_of_the_union.txt.zst --documents line --vocab-size 4096 --output "
      "shards");
  command
      .add_option("INPUT", options->inputs,
                  "Text, JSON lines or tar archives of them, compressed or not: files, directories, quoted patterns, "
                  "or - for standard input")
      ->required();
  command.add_option("-o,--output", options->output, "Directory for train-*.bin, validation-*.bin and the tokenizer")
      ->required();
  command.add_option("--vocab-size", options->vocab_size, "Train a tokenizer with this many tokens")
      ->check(CLI::Range(min_trained_vocab_size, Tokenizer::max_vocab_size));
  command.add_option("--tokenizer", options->tokenizer,
                     "Use this tokenizer instead of training one: a SentencePiece model, a tokenizer.json of Hugging "
                     "Face's, or a rank file of tiktoken's");
  command
      .add_option("--pattern", options->tokenizer_options.pattern,
                  "How a tiktoken file cuts text into words, where its number of ranks is none of the published: gpt2, "
                  "cl100k, o200k, llama3 or a regular expression")
      ->type_name("NAME|REGEX");
  command
      .add_option("--end-of-document", options->tokenizer_options.end_of_document,
                  "The token that ends a document, where the tokenizer has none of the usual names")
      ->type_name("TOKEN");
  static const std::map<std::string, DocumentRule> rules{
      {"file", DocumentRule::file}, {"line", DocumentRule::line}, {"paragraph", DocumentRule::paragraph}};
  command
      .add_option_function<std::string>(
          "--documents", [options](const std::string& name) { options->text.documents = rules.at(name); },
          "What a document of plain text is")
      ->check(CLI::IsMember(rules).description(""))
      ->type_name("file|line|paragraph")
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
  command
      .add_option_function<std::string>(
          "--skip-bad", [options](const std::string& text) { options->most_bad = most_bad_of(text); },
          "Leave out at most this many bad documents, such as lines that are not JSON or have no text; or all")
      ->type_name("N|all");
  command.add_flag("--replace-invalid", options->text.replace_invalid, "Replace bytes that are not UTF-8 by U+FFFD");
  command.add_flag("--overwrite", options->overwrite, "Replace shards and tokenizer that nibble tokenize wrote there");
  command.final_callback([options] { run_tokenize(*options); });
}

}  // namespace nibble
