// The formats of token files that nibble reads. A format is a source of its own, which ends with the format's row, and
// the row's name in the list of shard_format.cpp:
//
//   nibble_format  shard_reader.cpp  nibble's own shards (data/shards/shard.h)
//   llmc_format    llmc_shard.cpp    the .bin files of llm.c and modded-nanogpt
//
// A file belongs to the first format of the list that recognises its beginning.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "data/shards/token_shard.h"

namespace nibble {

// The beginning of a file whose format is asked for.
struct FileStart {
  std::filesystem::path path;
  uint64_t size = 0;
  std::vector<std::byte> bytes;  // the first 4096, or all
};

struct ShardFormat {
  bool (*recognises)(const FileStart& file);
  // Throws ExitCode::bad_data for a file that is not what its beginning says.
  std::unique_ptr<TokenShard> (*open)(const std::filesystem::path& path);
};

extern const ShardFormat nibble_format;
extern const ShardFormat llmc_format;

}  // namespace nibble
