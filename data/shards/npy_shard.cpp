// NumPy's arrays of token ids, as build-nanogpt writes them; the row of data/shards/shard_format.h.
#include <fmt/format.h>

#include <array>

#include "data/shards/flat_shard.h"
#include "data/shards/npy_header.h"
#include "data/shards/shard_format.h"
#include "dist/base/error.h"
#include "dist/base/text.h"

namespace nibble {
namespace {

[[noreturn]] void refuse(const std::string& name, const std::string& what) {
  throw Error(ExitCode::bad_data, fmt::format("{}: {}", name, what),
              "save the ids as one array of little-endian integers: numpy.save(path, ids.reshape(-1).astype(\"<u4\"))");
}

IdType type_of(const std::string& name, const std::string& descr) {
  constexpr std::array<std::pair<std::string_view, IdType>, 8> types{{{"|u1", IdType::u8},
                                                                      {"|i1", IdType::i8},
                                                                      {"<u2", IdType::u16},
                                                                      {"<i2", IdType::i16},
                                                                      {"<u4", IdType::u32},
                                                                      {"<i4", IdType::i32},
                                                                      {"<u8", IdType::u64},
                                                                      {"<i8", IdType::i64}}};
  for (const auto& [text, type] : types) {
    if (text == descr) return type;
  }
  refuse(name, fmt::format("a NumPy array of type {}, no token ids", shown(descr)));
}

IdArray layout(const ShardFile& file, const ShardOptions& options) {
  const NpyHeader header = read_npy_header(
      file.name(), file.size(), [&](uint64_t offset, std::span<std::byte> bytes) { file.read(offset, bytes); });
  const IdType type = type_of(file.name(), header.descr);
  if (header.shape.size() != 1) refuse(file.name(), fmt::format("a NumPy array of {} axes", header.shape.size()));
  if (header.shape[0] == 0) refuse(file.name(), "a NumPy array without elements");
  const uint64_t bytes = file.size() - header.data_offset;
  if (bytes % bytes_of(type) != 0 || bytes / bytes_of(type) != header.shape[0]) {
    throw Error(ExitCode::bad_data,
                fmt::format("{}: {} bytes follow the header of a NumPy array of {} elements of {} bytes", file.name(),
                            bytes, header.shape[0], bytes_of(type)),
                "restore the shard from a copy, or write it again");
  }
  return {.format = fmt::format("NumPy array of {}", name_of(type)),
          .offset = header.data_offset,
          .tokens = header.shape[0],
          .type = type,
          .vocab_size = unstated_vocabulary(file.name(), type, 0, options)};
}

}  // namespace

const ShardFormat npy_format = {
    .recognises = [](const FileStart& file, const ShardOptions&) { return begins_as_npy(file.bytes); },
    .open = [](const std::filesystem::path& path, const ShardOptions& options) -> std::unique_ptr<TokenShard> {
      return std::make_unique<FlatShard>(path, options, layout);
    }};

}  // namespace nibble
