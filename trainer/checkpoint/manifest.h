// The file manifest.json of a checkpoint: it describes the contents and holds the size and hash of every other file.
// Its last member is the hash of all text before it, so that no byte of the manifest can change unnoticed.
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
  // The order is config.yaml, index.h5, then the rank files by rank.
  std::vector<ManifestFile> files;
};

constexpr uint64_t max_manifest_bytes = uint64_t{256} << 20;

std::string rank_file_name(int rank);  // "rank-00003.h5"

std::string manifest_text(const Manifest& manifest);
// Parses a manifest; `path` stands for it in messages. Throws ExitCode::bad_data if its hash, the version of its format
// or any member is wrong: names, sizes that overflow, tensors or shards out of order.
Manifest parse_manifest(const std::string& text, const std::filesystem::path& path);

// Compares a file of a checkpoint with its manifest entry. Returns an empty text if the file is whole, else a text that
// names the file, what was expected and what was found.
std::string damage_of(const std::filesystem::path& directory, const ManifestFile& file);

}  // namespace nibble
