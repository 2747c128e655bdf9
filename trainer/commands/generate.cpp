#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "data/tokenizers/tokenizer.h"
#include "dist/base/signals.h"
#include "trainer/commands/commands.h"
#include "trainer/inference/generation.h"
#include "trainer/inference/inference_model.h"
#include "trainer/rank_main.h"

namespace nibble {

namespace {

struct GenerateOptions {
  std::string path;
  std::vector<std::string> overrides;
  std::string prompt;
  int64_t tokens = 128;
  SamplingOptions sampling;
  bool any_tokenizer = false;
};

ExitCode generate(Communicator& communicator, const GenerateOptions& options) {
  const CheckpointInfo checkpoint = open_checkpoint(communicator, options.path);
  if (communicator.rank() != 0) return ExitCode::ok;
  const RunConfig config = config_of_checkpoint(checkpoint, parse_overrides(options.overrides));
  const std::unique_ptr<Tokenizer> loaded = Tokenizer::load(tokenizer_path(config));
  const Tokenizer& tokenizer = *loaded;
  check_vocabulary(config, tokenizer_path(config), tokenizer.vocab_size());
  check_tokenizer(checkpoint, tokenizer_path(config), tokenizer.hash(), options.any_tokenizer);
  InferenceModel inference(checkpoint, config, 1, /*decoding=*/true);

  TextWriter writer(inference.model(), prompt_tokens(tokenizer, options.prompt), tokenizer.vocab_size(),
                    options.sampling);
  size_t printed = 0;
  const auto print_new_text = [&](const std::vector<int32_t>& tokens, bool all) {
    const std::string text = tokenizer.decode(tokens);
    const size_t end = all ? text.size() : settled_length(text);
    if (end <= printed) return;
    fmt::print("{}", text.substr(printed, end - printed));
    std::fflush(stdout);
    printed = end;
  };
  std::vector<int32_t> tokens = writer.tokens();  // without the end of the document
  print_new_text(tokens, false);
  for (int64_t i = 0; i < options.tokens && !stop_requested() && std::ferror(stdout) == 0; ++i) {
    const int32_t token = writer.next();
    if (token == tokenizer.eos_id()) break;
    tokens.push_back(token);
    print_new_text(tokens, false);
  }
  print_new_text(tokens, true);
  fmt::print("\n");
  return ExitCode::ok;
}

}  // namespace

void add_generate_options(CLI::App& command) {
  auto options = std::make_shared<GenerateOptions>();
  command.add_option("RUN_DIR", options->path, "Directory of a run (its newest checkpoint) or of one checkpoint")
      ->required();
  command.add_option("--set", options->overrides, "Override a key: --set data.tokenizer=moved/tokenizer.model")
      ->allow_extra_args(false);
  command.add_option("--prompt", options->prompt, "Text to continue; without it, a new document");
  command.add_option("--tokens", options->tokens, "Most tokens to add")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command
      .add_option("--temperature", options->sampling.temperature, "0 takes the likeliest token; 1 the model's own odds")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  command.add_option("--top-p", options->sampling.top_p, "Sample from the likeliest tokens that hold this probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command.add_option("--seed", options->sampling.seed, "Same seed, same text")
      ->check(CLI::NonNegativeNumber)  // without it, -1 would be read as 2^64 - 1
      ->capture_default_str();
  command.add_flag("--any-tokenizer", options->any_tokenizer,
                   "Go on with another tokenizer, whose ids mean other text to the model");
  command.footer("Example:\n  nibble generate runs/nvfp4 --prompt \"Fellow-Citizens of the Senate\" --temperature 0.8");
  command.final_callback([options] {
    throw CLI::RuntimeError(
        rank_main([&] { return config_beside(options->path, parse_overrides(options->overrides)); },
                  [&](Communicator& communicator, const RunConfig&) { return generate(communicator, *options); }));
  });
}

}  // namespace nibble
