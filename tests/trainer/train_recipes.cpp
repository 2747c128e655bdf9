// Trains every recipe of configs/recipes in one process, as `nibble train` and `nibble resume` train one, for
// recipes_test.sh:
//   train_recipes CONFIG SUFFIX [KEY=VALUE...]    new runs, in directories named like the recipe, with the suffix
//   train_recipes --resume SUFFIX                 those runs, from their newest checkpoint on
// The exit code is that of all runs; 70 if they do not agree.
#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "trainer/directory/run_directory.h"
#include "trainer/rank_main.h"
#include "trainer/run/training_loop.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

struct Order {
  bool resume = false;
  std::string config;
  std::string suffix;
  std::vector<std::string> overrides;

  RunConfig of_recipe(const fs::path& recipe) const {
    const std::string directory = recipe.stem().string() + suffix;
    if (resume) return parse_run_config((fs::absolute(directory) / "config.yaml").string());
    std::vector<std::string> all = overrides;
    all.push_back("recipe=" + recipe.string());
    all.push_back("run.dir=" + directory);
    return parse_run_config(config, parse_overrides(all));
  }
};

std::vector<fs::path> recipes() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(NIBBLE_SOURCE_DIR "/configs/recipes")) {
    if (entry.path().extension() == ".yaml") files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

ExitCode run_recipe(Communicator& communicator, const RunConfig& config, bool resume) {
  std::optional<CheckpointInfo> checkpoint;
  if (resume) checkpoint = find_checkpoint(communicator, config.run.dir);
  TrainingSession session(communicator, config);
  const RunDirectory directory =
      resume ? RunDirectory::open(communicator, config.run.dir)
             : RunDirectory::create(communicator, config.run.dir, resolved_yaml(session.config()));
  return run_training(communicator, session, directory, checkpoint);
}

ExitCode run_recipes(Communicator& communicator, const Order& order) {
  std::optional<ExitCode> code;
  bool agree = true;
  for (const fs::path& recipe : recipes()) {
    const ExitCode own = run_recipe(communicator, order.of_recipe(recipe), order.resume);
    agree = agree && own == code.value_or(own);
    code = own;
  }
  return agree && code ? *code : ExitCode::internal;
}

int train_recipes(const Order& order) {
  return rank_main([&] { return order.of_recipe(recipes().front()); },
                   [&](Communicator& communicator, const RunConfig&) { return run_recipes(communicator, order); });
}

}  // namespace
}  // namespace nibble

int main(int argument_count, char** arguments) {
  const std::vector<std::string> words(arguments + 1, arguments + argument_count);
  if (words.size() < 2) return 64;
  nibble::Order order{.resume = words[0] == "--resume", .config = words[0], .suffix = words[1], .overrides = {}};
  order.overrides.assign(words.begin() + 2, words.end());
  return nibble::train_recipes(order);
}
