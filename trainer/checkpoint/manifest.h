// manifest.json of a checkpoint: what it holds, and the size and hash of every other file. The last member is the hash
// of all text before it, so that no byte of the manifest can change unnoticed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "dist/base/file_system.h"
#include "trainer/checkpoint/checkpoint.h"

namespace nibble {

struct ManifestFile {
  std::string name;
  FileDigest digest;
};

struct Manifest {
  CheckpointInfo info;  // without directory and config_yaml, which are not in the file
  // config.yaml, index.h5, then the rank files in order.
  std::vector<ManifestFile> files;
};

constexpr uint64_t max_manifest_bytes = uint64_t{256} << 20;

std::string rank_file_name(int rank);  // "rank-00003.h5"

std::string manifest_text(const Manifest& manifest);
// Checks the hash, the version of the format and every member: names, sizes that do not overflow, tensors and shards in
// order. `path` is for messages. ExitCode::bad_data.
Manifest parse_manifest(const std::string& text, const std::filesystem::path& path);

// Compares a file of a checkpoint with its manifest entry: empty if it is whole, else what is wrong, naming the file,
// what was expected and what was found.
std::string damage_of(const std::filesystem::path& directory, const ManifestFile& file);

}  // namespace nibble
