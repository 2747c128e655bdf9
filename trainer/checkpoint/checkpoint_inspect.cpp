// Prints a checkpoint for `nibble inspect`.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/manifest.h"

namespace nibble {

namespace {

std::filesystem::path choose(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::exists(path / "manifest.json", ignored)) return path;
  const std::vector<StepDirectory> checkpoints = list_checkpoints(path);
  if (checkpoints.empty()) {
    throw Error(ExitCode::missing_input, fmt::format("there is no checkpoint in {}", path.string()),
                "name a run directory with a checkpoint, or one checkpoint");
  }
  return checkpoints.front().path;
}

std::string position_text(const DataPosition& position) {
  if (position.lengths.empty()) return "";
  return fmt::format("; in epoch {}, which has {} samples read with sequences of {} tokens, over {} shard(s)",
                     position.epoch, position.taken, fmt::join(position.lengths, ", then "), position.shards.size());
}

// Prints what the run has read so far. Version 1 says nothing of it but the number of tokens.
void print_data(const CheckpointInfo& info) {
  const bool first_version = info.format_version == 1;
  std::string tokenizer = first_version ? tokenizer_of_version_1(info) : info.data.tokenizer;
  if (tokenizer.empty()) tokenizer = "not known: version 1 does not say, and its training shards are not there";
  if (tokenizer == std::string(tokenizer.size(), '0')) tokenizer = "not known: the shards do not say";
  fmt::print("tokenizer         {}\ndata fingerprint  {}\n", tokenizer, info.data.fingerprint);
  if (info.data.sequence_length == 0) {
    fmt::print("next sample       not known: version 1 does not say, and config.yaml cannot be read\n");
    return;
  }
  fmt::print("next sample       {} of {} tokens\n", info.data.next_sample, info.data.sequence_length);
  for (const DataPart& part : info.data.parts) {
    fmt::print("data part         {}: weight {}, {} windows, {} samples taken{}{}\n", part.name, part.weight,
               part.windows, part.taken, position_text(part.position), part.used ? "" : "; the run has left it");
  }
}

void print_array(const ArrayInfo& array, const Layout& layout) {
  const auto covered =
      std::ranges::count_if(layout.tensors(), [&](const auto& tensor) { return array.covers(tensor); });
  std::string text = fmt::format("{} ({})", array.name, name_of(array.dtype));
  if (array.elements_a_value > 1) text += fmt::format(", a value for {} elements", array.elements_a_value);
  if (!array.tensors.empty()) text += fmt::format(", of {} tensors", covered);
  fmt::print("array             {}\n", text);
}

void print_contents(const CheckpointInfo& info) {
  fmt::print("format            version {}\nstep              {}\ntokens            {}\nseed              {}\n",
             info.format_version, info.step, info.tokens, info.seed);
  fmt::print("saved by          nibble {}{} on {} {}\n", info.nibble_version,
             info.commit.empty() ? "" : fmt::format(" ({})", info.commit), info.ranks,
             info.ranks == 1 ? "rank" : "ranks");
  fmt::print("parallel          each rank has a part of: {}; order of the sum: {}\n", info.parallel.shard,
             info.parallel.order);
  fmt::print("skipped steps     {}\n", info.number("skipped/total"));
  print_data(info);
  for (const OptimizerInfo& optimizer : info.optimizers) {
    fmt::print("optimizer         {} ({})\n", optimizer.name, fmt::join(optimizer.state, ", "));
  }
  for (const ArrayInfo& array : info.arrays) print_array(array, info.layout);
  for (const auto& array : info.replicated) {
    fmt::print("replicated        {} ({}) [{}]\n", array.name, name_of(array.dtype), fmt::join(array.shape, ", "));
  }
  uint64_t elements = 0;
  for (const TensorLayout& tensor : info.layout.tensors()) {
    fmt::print("tensor            {} [{}]\n", tensor.name, fmt::join(tensor.shape, ", "));
    elements += tensor.count;
  }
  fmt::print("elements          {} in {} tensors\n", elements, info.layout.tensors().size());
}

// Completes version 1 with its configuration, if that file is whole.
void read_configuration(const std::filesystem::path& directory, Manifest& manifest) {
  if (!damage_of(directory, manifest.files.front()).empty()) return;
  manifest.info.directory = directory;
  manifest.info.config_yaml = read_file(directory / "config.yaml", manifest.files.front().digest.bytes);
  complete_version_1(manifest.info);
}

}  // namespace

void inspect_checkpoint(const std::filesystem::path& path) {
  const std::filesystem::path directory = choose(path);
  const std::filesystem::path manifest_file = directory / "manifest.json";
  fmt::print("checkpoint        {}\n", directory.string());
  Manifest manifest = parse_manifest(read_file(manifest_file, max_manifest_bytes), manifest_file);
  read_configuration(directory, manifest);
  print_contents(manifest.info);
  std::string first_damage;
  for (const ManifestFile& file : manifest.files) {
    const std::string damage = damage_of(directory, file);
    fmt::print("file              {:<14} {:>14} bytes  {}  {}\n", file.name, file.digest.bytes, file.digest.hash,
               damage.empty() ? "whole" : "DAMAGED");
    if (first_damage.empty()) first_damage = damage;
  }
  std::fflush(stdout);
  if (!first_damage.empty()) {
    throw Error(ExitCode::bad_data, fmt::format("the checkpoint is damaged: {}", first_damage),
                "use another checkpoint");
  }
}

}  // namespace nibble
