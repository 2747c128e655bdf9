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
// Parses a manifest of version 2, which manifest_text() writes, or of version 1 (manifest_version_1.cpp); `path` stands
// for it in messages. Throws ExitCode::bad_data if its hash, the version of its format or any member is wrong: names,
// sizes that overflow, tensors out of order, ranges of rank files that are not all elements once, words in
// format.requires.
Manifest parse_manifest(const std::string& text, const std::filesystem::path& path);

// Fills in what version 1 says only through its configuration (config_yaml): the sequence length and the next sample,
// that of the step that the program would have computed next. They stay 0 if this program cannot read the
// configuration. Does nothing to other versions.
void complete_version_1(CheckpointInfo& info);
// Returns the tokenizer of version 1, which its manifest does not say: that of the training shards, if they are still
// where the configuration says and have the checkpoint's fingerprint. Else the text is empty.
std::string tokenizer_of_version_1(const CheckpointInfo& info);

// Compares a file of a checkpoint with its manifest entry. Returns an empty text if the file is whole, else a text that
// names the file, what was expected and what was found.
std::string damage_of(const std::filesystem::path& directory, const ManifestFile& file);

}  // namespace nibble
