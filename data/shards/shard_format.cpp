#include "data/shards/shard_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "dist/base/error.h"
#include "dist/base/file.h"

namespace nibble {
namespace {

constexpr std::array formats{&nibble_format, &llmc_format};

FileStart start_of(const std::filesystem::path& path) {
  constexpr uint64_t most = 4096;
  const InputFile file(path);
  FileStart start{.path = path, .size = file.size(), .bytes = std::vector<std::byte>(std::min(most, file.size()))};
  file.read(0, start.bytes);
  return start;
}

}  // namespace

std::unique_ptr<TokenShard> open_token_shard(const std::filesystem::path& path) {
  const FileStart start = start_of(path);
  for (const ShardFormat* format : formats) {
    if (format->recognises(start)) return format->open(path);
  }
  throw Error(ExitCode::bad_data,
              fmt::format("{}: neither a token shard of nibble nor one of llm.c (by its first bytes)", path.string()),
              "restore the shard from a copy, or make it again with nibble tokenize");
}

}  // namespace nibble
