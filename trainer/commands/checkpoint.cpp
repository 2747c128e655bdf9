// nibble checkpoint ls, verify, diff and prune.
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/text.h"
#include "dist/ranks/self_communicator.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_diff.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/commands/commands.h"
#include "trainer/config/run_config.h"
#include "trainer/directory/run_directory.h"
#include "trainer/report/metrics.h"

namespace nibble {

namespace {

namespace fs = std::filesystem;

std::string mebibytes(uint64_t bytes) {
  return fmt::format("{:.1f}", static_cast<double>(bytes) / 1048576.0);
}

Manifest read_manifest(const fs::path& checkpoint) {
  const fs::path path = checkpoint / "manifest.json";
  return parse_manifest(read_file(path, max_manifest_bytes), path);
}

uint64_t bytes_of(const Manifest& manifest) {
  uint64_t bytes = 0;
  for (const ManifestFile& file : manifest.files) bytes += file.digest.bytes;
  return bytes;
}

// Returns the run's checkpoints, oldest first. Throws ExitCode::missing_input if there is none.
std::vector<StepDirectory> checkpoints_of(const fs::path& run_directory) {
  std::vector<StepDirectory> checkpoints = list_checkpoints(run_directory);
  if (checkpoints.empty()) {
    throw Error(ExitCode::missing_input, fmt::format("there is no checkpoint in {}", run_directory.string()),
                "name a run directory with a checkpoint");
  }
  std::ranges::reverse(checkpoints);
  return checkpoints;
}

// ---- ls

struct Row {
  std::string name;
  std::optional<Manifest> manifest;  // if it can be read
  std::string damage;                // why it cannot, or which file has another size
  std::string saved;                 // time of the manifest, UTC
  std::optional<double> loss;
  std::vector<std::string> kept;  // why
};

std::string time_of(const fs::path& file) {
  struct stat status {};
  if (stat(file.c_str(), &status) != 0) return "";
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(status.st_mtime));
}

// Looks at sizes only; `nibble checkpoint verify` reads every byte.
std::string damage_at_a_glance(const fs::path& checkpoint, const Manifest& manifest) {
  for (const ManifestFile& file : manifest.files) {
    std::error_code error;
    const uint64_t bytes = fs::file_size(checkpoint / file.name, error);
    if (error) return fmt::format("{}: {}", file.name, error.message());
    if (bytes != file.digest.bytes) {
      return fmt::format("{} has {} bytes, expected {}", file.name, bytes, file.digest.bytes);
    }
  }
  return {};
}

Row row_of(const fs::path& checkpoint) {
  Row row;
  row.name = checkpoint.filename().string();
  row.saved = time_of(checkpoint / "manifest.json");
  try {
    row.manifest = read_manifest(checkpoint);
    row.damage = damage_at_a_glance(checkpoint, *row.manifest);
  } catch (const Error& error) {
    row.damage = error.what();
  }
  return row;
}

// The run's own configuration; the defaults if it cannot be read, since a list must not fail for that.
RunConfig::Checkpoint retention_of(const fs::path& run_directory) {
  try {
    return parse_run_config(run_directory / "config.yaml").checkpoint;
  } catch (const Error&) {
    return {};
  }
}

std::optional<double> loss_at(const RunHistory& history, uint64_t step, const std::string& set) {
  const auto found = std::ranges::find(history.validations, step, &RunHistory::Validation::step);
  if (found == history.validations.end()) return std::nullopt;
  const auto named = std::ranges::find(found->losses, set, &ValidationLoss::name);
  return named == found->losses.end() ? found->loss() : named->loss;
}

std::vector<Row> rows_of(const fs::path& run_directory) {
  const RunConfig::Checkpoint keeps = retention_of(run_directory);
  const uint64_t best = best_step(run_directory);
  RunHistory history;
  if (fs::exists(run_directory / "metrics.jsonl")) history = read_history(run_directory / "metrics.jsonl");
  std::vector<Row> rows;
  int64_t newer = 0;  // good checkpoints that are newer
  for (const StepDirectory& checkpoint : list_checkpoints(run_directory)) {
    Row row = row_of(checkpoint.path);
    const auto step = static_cast<int64_t>(checkpoint.step);
    row.loss = loss_at(history, checkpoint.step, keeps.keep_best);
    if (checkpoint.is_link) row.kept.emplace_back("link");
    if (row.manifest && !checkpoint.is_link && newer++ < keeps.keep_last) row.kept.emplace_back("last");
    if (keeps.keep_every > 0 && step % keeps.keep_every == 0) row.kept.emplace_back("every");
    if (best != 0 && checkpoint.step == best) row.kept.emplace_back("best");
    rows.insert(rows.begin(), std::move(row));
  }
  for (const fs::path& aside : list_set_aside(run_directory)) {
    rows.push_back(row_of(aside));
    rows.back().kept.emplace_back(rows.back().name.find(".abandoned") != std::string::npos ? "abandoned" : "corrupt");
  }
  return rows;
}

nlohmann::ordered_json json_of(const Row& row) {
  nlohmann::ordered_json object{{"name", row.name}};
  if (row.manifest) {
    object["step"] = row.manifest->info.step;
    object["tokens"] = row.manifest->info.tokens;
    object["bytes"] = bytes_of(*row.manifest);
    object["ranks"] = row.manifest->info.ranks;
  }
  object["saved"] = row.saved;
  object["validation_loss"] = row.loss ? nlohmann::ordered_json(*row.loss) : nlohmann::ordered_json();
  object["kept"] = row.kept;
  object["damage"] = row.damage;
  return object;
}

void list(const fs::path& run_directory, bool json) {
  const std::vector<Row> rows = rows_of(run_directory);
  if (rows.empty()) checkpoints_of(run_directory);  // says that there is none
  if (json) {
    nlohmann::ordered_json array = nlohmann::ordered_json::array();
    for (const Row& row : rows) array.push_back(json_of(row));
    fmt::print("{}\n", array.dump(2));
    return;
  }
  size_t width = 10;
  for (const Row& row : rows) width = std::max(width, row.name.size());
  fmt::print("{:<{}}  {:>16} {:>10}  {:<20} {:>5}  {:>10}  {}\n", "checkpoint", width, "tokens", "MiB", "saved",
             "ranks", "validation", "kept as");
  for (const Row& row : rows) {
    const std::string kept = fmt::format("{}", fmt::join(row.kept, ", "));
    if (row.manifest) {
      fmt::print("{:<{}}  {:>16} {:>10}  {:<20} {:>5}  {:>10}  {}\n", row.name, width,
                 with_thousands(row.manifest->info.tokens), mebibytes(bytes_of(*row.manifest)), row.saved,
                 row.manifest->info.ranks, row.loss ? fmt::format("{:.4f}", *row.loss) : "-", kept);
    } else {
      fmt::print("{:<{}}  {}\n", row.name, width, kept);
    }
    if (!row.damage.empty()) fmt::print("  DAMAGED: {}\n", row.damage);
  }
}

// ---- verify

// Prints the state of a checkpoint, every byte of which is read. `step` is the one in its name.
bool verify_one(const fs::path& checkpoint, std::optional<uint64_t> step) {
  std::vector<std::string> damages;
  std::string size;
  try {
    const Manifest manifest = read_manifest(checkpoint);
    if (step && manifest.info.step != *step) {
      damages.push_back(fmt::format("{} is of step {}", (checkpoint / "manifest.json").string(), manifest.info.step));
    }
    for (const ManifestFile& file : manifest.files) {
      if (std::string damage = damage_of(checkpoint, file); !damage.empty()) damages.push_back(std::move(damage));
    }
    size = fmt::format("{} files, {} MiB", manifest.files.size() + 1, mebibytes(bytes_of(manifest)));
  } catch (const Error& error) {
    damages.emplace_back(error.what());
  }
  fmt::print("{:<16}  {}\n", checkpoint.filename().string(), damages.empty() ? "whole, " + size : "DAMAGED");
  for (const std::string& damage : damages) fmt::print("  {}\n", damage);
  std::fflush(stdout);
  return damages.empty();
}

void verify(const std::string& written, std::optional<uint64_t> step) {
  const fs::path path = step ? checkpoint_of_step(written, *step) : written_checkpoint(written);
  size_t count = 1, damaged = 0;
  if (step || fs::exists(path / "manifest.json")) {
    damaged += verify_one(path, step) ? 0 : 1;
  } else {
    const std::vector<StepDirectory> checkpoints = checkpoints_of(path);
    count = checkpoints.size();
    for (const StepDirectory& checkpoint : checkpoints) {
      damaged += verify_one(checkpoint.path, checkpoint.step) ? 0 : 1;
    }
  }
  if (damaged == 0) return;
  throw Error(
      ExitCode::bad_data,
      fmt::format("{} of {} checkpoints of {} {} damaged", damaged, count, written, damaged == 1 ? "is" : "are"),
      "restore the files that are named above from a copy; a resume passes damaged checkpoints over");
}

// ---- diff

void diff(const std::string& first, const std::string& second) {
  SelfCommunicator communicator;
  const CheckpointInfo a = open_checkpoint(communicator, first);
  const CheckpointInfo b = open_checkpoint(communicator, second);
  const CheckpointDifference result = compare_checkpoints(a, b);
  for (const ArrayDifference& difference : result.differing) {
    if (difference.reason.empty()) {
      fmt::print("{}  {} of {} values differ, by {:.6g} at most\n", difference.name,
                 with_thousands(difference.different), with_thousands(difference.values), difference.largest);
    } else {
      fmt::print("{}  {}\n", difference.name, difference.reason);
    }
  }
  if (result.differing.empty()) {
    fmt::print("equal: {} arrays and numbers of steps {} and {}\n", result.compared, a.step, b.step);
    return;
  }
  fmt::print("{} of {} arrays and numbers differ (steps {} and {})\n", result.differing.size(), result.compared, a.step,
             b.step);
  throw CLI::RuntimeError(static_cast<int>(ExitCode::numerics));
}

// ---- prune

struct PruneOptions {
  std::string run_directory;
  uint64_t keep_last = 1;
  uint64_t keep_every = 0;
  bool dry_run = false;
};

void prune(const PruneOptions& options) {
  const fs::path run = options.run_directory;
  checkpoints_of(run);  // a directory without one is no run: nothing is made in it
  SelfCommunicator communicator;
  std::optional<RunDirectory> locked;
  if (!options.dry_run) locked.emplace(RunDirectory::open(communicator, run));
  // What stays must be whole: the newest checkpoint is read before an older one goes.
  const CheckpointInfo newest = find_checkpoint(communicator, run);
  const std::vector<StepDirectory> surplus = surplus_checkpoints(
      run, newest.step, {.keep_last = options.keep_last, .keep_every = options.keep_every, .best = best_step(run)});
  for (const StepDirectory& checkpoint : surplus) {
    const std::string size = mebibytes(bytes_of(read_manifest(checkpoint.path)));
    if (!options.dry_run && !remove_checkpoint(checkpoint)) {
      throw Error(ExitCode::io, fmt::format("cannot remove {}", checkpoint.path.string()), "check its permissions");
    }
    fmt::print("{} {} ({} MiB)\n", options.dry_run ? "would remove" : "removed", checkpoint.path.filename().string(),
               size);
  }
  if (surplus.empty()) fmt::print("nothing to remove\n");
}

void add_diff(CLI::App& command) {
  const auto names = std::make_shared<std::vector<std::string>>(2);
  CLI::App* diff_command = command.add_subcommand("diff", "Compare what two checkpoints hold, tensor by tensor");
  diff_command->add_option("A", (*names)[0], "A checkpoint, RUN_DIR@STEP, or a run directory: its newest one")
      ->required();
  diff_command->add_option("B", (*names)[1], "The same")->required();
  diff_command->footer(
      "Exit code 0: equal, whatever the number of ranks that saved; 77: some tensors differ.\n"
      "Example:\n  nibble checkpoint diff runs/a@800 runs/b@800");
  diff_command->final_callback([names] { diff((*names)[0], (*names)[1]); });
}

void add_prune(CLI::App& command) {
  const auto options = std::make_shared<PruneOptions>();
  CLI::App* prune_command = command.add_subcommand("prune", "Remove old checkpoints of a run that is not training");
  prune_command->add_option("RUN_DIR", options->run_directory, "Directory of the run")->required();
  prune_command->add_option("--keep-last", options->keep_last, "Keep so many of the newest")
      ->required()
      ->check(CLI::Range(uint64_t{1}, uint64_t{1000000}));
  prune_command->add_option("--keep-every", options->keep_every, "Keep those of steps divisible by this; 0 = none");
  prune_command->add_flag("--dry-run", options->dry_run, "Only say what would be removed");
  prune_command->footer(
      "The best one (checkpoint.keep_best) and links stay, and so does what has a damaged manifest or was set aside.\n"
      "Example:\n  nibble checkpoint prune runs/a --keep-last 2 --keep-every 1000 --dry-run");
  prune_command->final_callback([options] { prune(*options); });
}

}  // namespace

void add_checkpoint_options(CLI::App& command) {
  struct Options {
    std::string path;
    std::optional<uint64_t> step;
    bool json = false;
  };
  const auto options = std::make_shared<Options>();
  command.require_subcommand(1);
  CLI::App* ls = command.add_subcommand("ls", "List the checkpoints of a run");
  ls->add_option("RUN_DIR", options->path, "Directory of the run")->required();
  ls->add_flag("--json", options->json, "Print JSON");
  ls->footer("Example:\n  nibble checkpoint ls runs/a");
  ls->final_callback([options] { list(options->path, options->json); });
  CLI::App* verify_command = command.add_subcommand("verify", "Read every byte and compare it with the hashes");
  verify_command->add_option("PATH", options->path, "A run directory: all its checkpoints; or one checkpoint")
      ->required();
  verify_command->add_option("--step", options->step, "Only the run's checkpoint of this step");
  verify_command->footer("Exit code 65: one is damaged.\nExample:\n  nibble checkpoint verify runs/a --step 800");
  verify_command->final_callback([options] { verify(options->path, options->step); });
  add_diff(command);
  add_prune(command);
  command.footer(
      "Examples:\n"
      "  nibble checkpoint ls runs/a\n"
      "  nibble checkpoint verify runs/a\n"
      "  nibble checkpoint diff runs/a@800 runs/b@800\n"
      "  nibble checkpoint prune runs/a --keep-last 2 --dry-run");
}

}  // namespace nibble
