// The formats of token files that nibble reads. A format is a source of its own, which ends with the format's row, and
// the row's name in the list of shard_format.cpp:
//
//   nibble_format    shard_reader.cpp    nibble's own shards (data/shards/shard.h)
//   llmc_format      llmc_shard.cpp      the .bin files of llm.c and modded-nanogpt
//   megatron_format  megatron_shard.cpp  Megatron's pairs of .bin and .idx
//   npy_format       npy_shard.cpp       NumPy's arrays of integers
//   bare_format      bare_shard.cpp      ids without a header, as nanoGPT's, if their width is named
//
// A file belongs to the first format of the list that recognises its beginning.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "data/file_kind.h"
#include "data/shards/token_shard.h"

namespace nibble {

// The beginning of a file whose format is asked for.
struct FileStart {
  std::filesystem::path path;
  uint64_t size = 0;
  std::vector<std::byte> bytes;  // the first file_kind_bytes, or all
};

struct ShardFormat {
  bool (*recognises)(const FileStart& file, const ShardOptions& options);
  // Throws ExitCode::bad_data for a file that is not what its beginning says.
  std::unique_ptr<TokenShard> (*open)(const std::filesystem::path& path, const ShardOptions& options);
};

// Returns what a file is whose beginning no array of token ids has: a mark of its kind, or nothing but text. Null if it
// may be token ids.
const FileKind* unmistakable_kind(std::span<const std::byte> start);

extern const ShardFormat nibble_format;
extern const ShardFormat llmc_format;
extern const ShardFormat megatron_format;
extern const ShardFormat npy_format;
extern const ShardFormat bare_format;

}  // namespace nibble
