#include "trainer/directory/run_fork.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/file_descriptor.h"
#include "dist/base/file_system.h"
#include "dist/ranks/self_communicator.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/unfinished_directory.h"
#include "trainer/config/run_config.h"
#include "trainer/directory/journal.h"

namespace nibble {

namespace {

namespace fs = std::filesystem;

// Makes a new file that is on the disk when the function returns.
void copy_whole(const fs::path& from, const fs::path& to) {
  constexpr size_t block = size_t{4} << 20;
  const InputFile source(from);
  const FileDescriptor target(to, O_WRONLY | O_CREAT | O_EXCL);
  std::vector<std::byte> buffer(block);
  uint64_t offset = 0;
  while (const size_t got = source.read_some(offset, buffer)) {
    write_at(target, to, offset, std::span(buffer).first(got));
    offset += got;
  }
  sync(target, to);
}

// Copies the files that the manifest names, and the manifest last. A run may put another checkpoint of the same step in
// its place meanwhile; then the copies do not have the hashes of the manifest that was read first.
void copy_checkpoint(const fs::path& from, const fs::path& to) {
  make_directories(to);
  const std::string text = read_file(from / "manifest.json", max_manifest_bytes);
  for (const ManifestFile& file : parse_manifest(text, from / "manifest.json").files) {
    copy_whole(from / file.name, to / file.name);
    if (const std::string damage = damage_of(to, file); !damage.empty()) {
      throw Error(ExitCode::io, fmt::format("the copy of {} is not whole: {}", (from / file.name).string(), damage),
                  "try again; if it comes again, test the disk and the memory of this machine");
    }
  }
  write_new_file(to / "manifest.json", text);
  sync_path(to);
  sync_path(to.parent_path());
}

// Copies the lines about steps up to `step`. Lines without a step belong to the line that follows them: those of a
// process that made no such step are left out.
void copy_metrics(const fs::path& from, const fs::path& to, uint64_t step) {
  std::ifstream source(from, std::ios::binary);
  if (!source) return;
  OutputFile target(to);
  uint64_t offset = 0;
  std::string line, waiting;
  for (uint64_t number = 1; std::getline(source, line); ++number) {
    if (source.eof()) break;  // no newline: the run is writing this line at this moment
    const nlohmann::json object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) {
      throw Error(ExitCode::bad_data, fmt::format("{}:{}: not a line of metrics", from.string(), number),
                  "repair or remove this line");
    }
    line += '\n';
    const auto stated = object.find("step");
    if (stated == object.end() || !stated->is_number_unsigned()) {
      waiting += line;
    } else if (stated->get<uint64_t>() <= step) {
      waiting += line;
      target.write_at(offset, std::as_bytes(std::span(waiting)));
      offset += waiting.size();
      waiting.clear();
    } else {
      waiting.clear();
    }
  }
  target.publish();
}

void copy_run(const fs::path& source, const CheckpointInfo& checkpoint, RunConfig config, const fs::path& target) {
  UnfinishedDirectory fork(target, "name a directory that does not exist; a fork is never put over anything");
  const fs::path copy = fork.path() / "checkpoints" / step_directory_name(checkpoint.step);
  try {
    copy_checkpoint(checkpoint.directory, copy);
  } catch (const Error& error) {
    std::error_code ignored;
    if (fs::exists(checkpoint.directory, ignored)) throw;
    throw Error(ExitCode::missing_input,
                fmt::format("{} was removed while it was copied", checkpoint.directory.string()),
                "fork from a checkpoint that the run keeps (checkpoint.keep_last, checkpoint.keep_every)");
  }
  config.run.dir = target;
  write_new_file(fork.path() / "config.yaml", resolved_yaml(config));
  copy_metrics(source / "metrics.jsonl", fork.path() / "metrics.jsonl", checkpoint.step);
  if (fs::exists(source / "gemm_plan.txt")) copy_whole(source / "gemm_plan.txt", fork.path() / "gemm_plan.txt");
  record_fork(fork.path(), source, checkpoint, digest_file(copy / "manifest.json").hash);
  fork.publish();
}

}  // namespace

CheckpointInfo fork_run(const fs::path& source, std::optional<uint64_t> step, const fs::path& target) {
  SelfCommunicator communicator;
  const CheckpointInfo checkpoint =
      step ? find_checkpoint_of_step(communicator, source, *step) : find_checkpoint(communicator, source);
  copy_run(source, checkpoint, parse_run_config_text(checkpoint.config_yaml, checkpoint.directory / "config.yaml"),
           target);
  return checkpoint;
}

}  // namespace nibble
