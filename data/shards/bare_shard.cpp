// Ids without a header, as nanoGPT's train.bin and the .ds files of datatrove are; the row of
// data/shards/shard_format.h. Nothing in such a file tells what it is, so the user names the width of an id
// (data.token_bytes), and a file whose beginning tells that it is something else is refused all the same.
#include <fmt/format.h>

#include "data/shards/flat_shard.h"
#include "data/shards/shard_format.h"
#include "dist/base/error.h"

namespace nibble {
namespace {

IdType type_of(uint32_t token_bytes) {
  NIBBLE_CHECK(token_bytes == 1 || token_bytes == 2 || token_bytes == 4, "a width of ids");
  return token_bytes == 1 ? IdType::u8 : token_bytes == 2 ? IdType::u16 : IdType::u32;
}

// Ids of one byte may be the bytes of a text.
bool recognises(const FileStart& file, const ShardOptions& options) {
  return options.token_bytes != 0 && !file.bytes.empty() &&
         (options.token_bytes == 1 || unmistakable_kind(file.bytes) == nullptr);
}

IdArray layout(const ShardFile& file, const ShardOptions& options) {
  const IdType type = type_of(options.token_bytes);
  if (file.size() % options.token_bytes != 0) {
    throw Error(ExitCode::bad_data,
                fmt::format("{}: {} bytes are no whole number of ids of {} bytes (data.token_bytes)", file.name(),
                            file.size(), options.token_bytes),
                "set data.token_bytes to the width of its ids, or restore the file from a copy");
  }
  return {.format = fmt::format("bare ids of {}", name_of(type)),
          .tokens = file.size() / options.token_bytes,
          .type = type,
          .vocab_size = unstated_vocabulary(file.name(), type, 0, options)};
}

}  // namespace

const ShardFormat bare_format = {
    .recognises = recognises,
    .open = [](const std::filesystem::path& path, const ShardOptions& options) -> std::unique_ptr<TokenShard> {
      return std::make_unique<FlatShard>(path, options, layout);
    }};

}  // namespace nibble
