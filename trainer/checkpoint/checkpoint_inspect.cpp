// Prints a checkpoint for `nibble inspect`.
#include <fmt/format.h>

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

void print_contents(const Manifest& manifest) {
  const CheckpointInfo& info = manifest.info;
  fmt::print("step              {}\ntokens            {}\nseed              {}\nsaved by          nibble {} on {} {}\n",
             info.step, info.tokens, info.seed, info.nibble_version, info.ranks, info.ranks == 1 ? "rank" : "ranks");
  fmt::print("skipped steps     {}\n", info.number("skipped_total"));
  fmt::print("data fingerprint  {}\n", info.data_fingerprint);
  for (const ArrayInfo& array : info.arrays)
    fmt::print("group             {} ({})\n", array.name, name_of(array.dtype));
  for (const auto& array : info.replicated) {
    fmt::print("array             {} ({}) [{}]\n", array.name, name_of(array.dtype), fmt::join(array.shape, ", "));
  }
  uint64_t elements = 0;
  for (const TensorLayout& tensor : info.layout.tensors()) {
    fmt::print("tensor            {} [{}]\n", tensor.name, fmt::join(tensor.shape, ", "));
    elements += tensor.count;
  }
  fmt::print("elements          {} in {} tensors, in every group\n", elements, info.layout.tensors().size());
}

}  // namespace

void inspect_checkpoint(const std::filesystem::path& path) {
  const std::filesystem::path directory = choose(path);
  const std::filesystem::path manifest_file = directory / "manifest.json";
  fmt::print("checkpoint        {}\n", directory.string());
  const Manifest manifest = parse_manifest(read_file(manifest_file, max_manifest_bytes), manifest_file);
  print_contents(manifest);
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
