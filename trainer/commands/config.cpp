#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "trainer/commands/commands.h"
#include "trainer/config/recipe/recipe_reference.h"
#include "trainer/config/run_config.h"
#include "trainer/huggingface/model_source.h"

namespace nibble {

namespace {

struct ConfigOptions {
  std::string config;
  std::vector<std::string> overrides;
  bool recipe = false;
};

RunConfig read_config(const ConfigOptions& options) {
  return parse_run_config(options.config, parse_overrides(options.overrides), model_at);
}

// Errors are not checked here: main() checks standard output at the end.
void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

CLI::App* add_reader(CLI::App& app, const std::string& name, const std::string& description,
                     const std::shared_ptr<ConfigOptions>& options) {
  CLI::App* command = app.add_subcommand(name, description);
  command->add_option("CONFIG", options->config, "Configuration of a run (YAML)")->required();
  command->add_option("--set", options->overrides, "Override a key: --set train.steps=100 (repeatable)")
      ->allow_extra_args(false);
  return command;
}

std::string summary(const RunConfig& config, const std::string& path) {
  return fmt::format("{}: ok: {} steps of {} tokens ({} micro-batches of {} x {}), {} blocks, recipe {}\n", path,
                     config.train.steps, config.train.tokens_per_step, config.micro_batches_per_step(),
                     config.train.micro_batch_sequences, config.model.sequence_length, config.model.blocks(),
                     config.recipe.name);
}

}  // namespace

void add_config_options(CLI::App& command) {
  command.require_subcommand(1);
  const auto options = std::make_shared<ConfigOptions>();
  add_reader(command, "check", "Check a configuration", options)->final_callback([options] {
    print(summary(read_config(*options), options->config));
  });
  add_reader(command, "show", "Print a configuration with every key, the recipe written out", options)
      ->final_callback([options] { print(resolved_yaml(read_config(*options))); });
  CLI::App* schema = command.add_subcommand("schema", "Print a JSON Schema for editors");
  schema->add_flag("--recipe", options->recipe, "Of a recipe in a file of its own, not of a run");
  schema->final_callback([options] { print(options->recipe ? recipe_schema() : config_schema()); });
  command.add_subcommand("reference", "Print docs/configuration.md")->final_callback([] { print(config_reference()); });
  command.footer(
      "Examples:\n"
      "  nibble config check run.yaml\n"
      "  nibble config show run.yaml --set recipe=bf16 --set train.steps=100\n"
      "  nibble config schema > run.schema.json\n"
      "  nibble config schema --recipe > recipe.schema.json");
}

}  // namespace nibble
