#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "dist/base/error.h"
#include "dist/base/text.h"
#include "trainer/commands/commands.h"
#include "trainer/directory/run_fork.h"

namespace nibble {

namespace {

struct ForkOptions {
  std::string run_directory;
  std::optional<uint64_t> step;
  std::string target;
};

// Without a slash at the end, so that the last part of the path is the directory's name.
std::filesystem::path absolute_path(const std::string& written) {
  const std::filesystem::path path = std::filesystem::absolute(written).lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

void run_fork(const ForkOptions& options) {
  const std::filesystem::path source = absolute_path(options.run_directory);
  if (std::filesystem::exists(source / "manifest.json")) {
    throw Error(ExitCode::missing_input, fmt::format("{} is one checkpoint, not a run directory", source.string()),
                "name the run directory that its checkpoints/ lies in, and the checkpoint by --step");
  }
  const CheckpointInfo checkpoint = fork_run(source, options.step, absolute_path(options.target));
  fmt::print("forked {} at step {} ({} tokens): `nibble resume {}` goes on\n", options.run_directory, checkpoint.step,
             with_thousands(checkpoint.tokens), options.target);
}

}  // namespace

void add_fork_options(CLI::App& command) {
  auto options = std::make_shared<ForkOptions>();
  command.add_option("RUN_DIR", options->run_directory, "Directory of the run; it is only read, and may be training")
      ->required();
  command.add_option("--step", options->step,
                     "Fork at the checkpoint of this step; without it, at the newest valid one");
  command.add_option("--to", options->target, "Directory of the new run, which must not exist")->required();
  command.footer(
      "Example:\n"
      "  nibble fork runs/nvfp4 --step 800 --to runs/nvfp4-bf16-end\n"
      "  mpirun -n 4 nibble resume runs/nvfp4-bf16-end --set recipe=bf16 --set 'resume.allow=[recipe]'");
  command.final_callback([options] { run_fork(*options); });
}

}  // namespace nibble
