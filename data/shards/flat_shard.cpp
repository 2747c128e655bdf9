#include "data/shards/flat_shard.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "dist/base/error.h"
#include "dist/base/little_endian.h"

namespace nibble {
namespace {

uint64_t hash_of_ends(const ShardFile& file, uint64_t seed) {
  constexpr uint64_t part = 65536;
  std::vector<std::byte> content(sizeof(uint64_t));
  store_little_endian(std::span(content), 0, file.size());
  for (const uint64_t offset : {uint64_t{0}, file.size() - std::min(part, file.size())}) {
    std::vector<std::byte> piece(std::min(part, file.size() - offset));
    file.read(offset, piece);
    content.insert(content.end(), piece.begin(), piece.end());
  }
  return hash64(content, seed);
}

struct TypeFacts {
  IdType type;
  uint32_t bytes;
  std::string_view name;
  uint64_t values;  // that are not negative; 0 = more than any vocabulary has
};
constexpr std::array<TypeFacts, 8> all_types{{{IdType::u8, 1, "uint8", 1U << 8U},
                                              {IdType::i8, 1, "int8", 1U << 7U},
                                              {IdType::u16, 2, "uint16", 1U << 16U},
                                              {IdType::i16, 2, "int16", 1U << 15U},
                                              {IdType::u32, 4, "uint32", 0},
                                              {IdType::i32, 4, "int32", 0},
                                              {IdType::u64, 8, "uint64", 0},
                                              {IdType::i64, 8, "int64", 0}}};

const TypeFacts& facts_of(IdType type) {
  return all_types[static_cast<size_t>(type)];
}

// Calls visit(value, index) for every id. Ids of 8 bytes without a sign that do not fit count as negative ones.
template <class Integer, class Visit>
void decode(std::span<const std::byte> data, const Visit& visit) {
  for (size_t i = 0; i < data.size() / sizeof(Integer); ++i) {
    visit(static_cast<int64_t>(load_little_endian<Integer>(data, i * sizeof(Integer))), i);
  }
}

template <class Visit>
void decode(IdType type, std::span<const std::byte> data, const Visit& visit) {
  switch (type) {
    case IdType::u8: return decode<uint8_t>(data, visit);
    case IdType::i8: return decode<int8_t>(data, visit);
    case IdType::u16: return decode<uint16_t>(data, visit);
    case IdType::i16: return decode<int16_t>(data, visit);
    case IdType::u32: return decode<uint32_t>(data, visit);
    case IdType::i32: return decode<int32_t>(data, visit);
    case IdType::u64: return decode<uint64_t>(data, visit);
    case IdType::i64: return decode<int64_t>(data, visit);
  }
}

}  // namespace

uint32_t bytes_of(IdType type) {
  return facts_of(type).bytes;
}

std::string_view name_of(IdType type) {
  return facts_of(type).name;
}

uint32_t unstated_vocabulary(const std::string& name, IdType type, uint32_t usual, const ShardOptions& options) {
  if (options.vocab_size != 0) return options.vocab_size;
  uint64_t size = usual != 0 ? usual : facts_of(type).values;
  if (options.model_vocab_size != 0 && (size == 0 || options.model_vocab_size < size)) size = options.model_vocab_size;
  if (size == 0) {
    throw Error(ExitCode::bad_config,
                fmt::format("{}: the file does not say how large the vocabulary of its {} ids is", name, name_of(type)),
                "set data.vocab_size to the size of the tokenizer's vocabulary");
  }
  return static_cast<uint32_t>(size);
}

FlatShard::FlatShard(const std::filesystem::path& path, const ShardOptions& options,
                     IdArray (*layout)(const ShardFile& file, const ShardOptions& options))
    : file_(std::make_unique<ShardFile>(path)), name_(path.string()), ids_(layout(*file_, options)) {
  identity_ = hash_of_ends(*file_, 0);
}

FlatShard::FlatShard(std::unique_ptr<ShardFile> file, IdArray ids, uint64_t more)
    : file_(std::move(file)), name_(file_->name()), ids_(std::move(ids)), identity_(hash_of_ends(*file_, more)) {}

void FlatShard::read(uint64_t first, std::span<int32_t> ids) {
  NIBBLE_CHECK(first <= ids_.tokens && ids.size() <= ids_.tokens - first, "read beyond the shard");
  const uint64_t offset = ids_.offset + first * token_bytes();
  buffer_.resize(ids.size() * token_bytes());
  file_->read(offset, buffer_);
  decode(ids_.type, buffer_, [&](int64_t id, size_t i) {
    if (id < 0 || id >= int64_t{ids_.vocab_size}) {
      throw Error(ExitCode::bad_data,
                  fmt::format("{}: token {} (byte {}) has id {}, but the vocabulary size is {}", name_, first + i,
                              offset + i * token_bytes(), id, ids_.vocab_size),
                  "if its tokenizer has a larger vocabulary, set data.vocab_size to that size (nibble inspect "
                  "--vocab-size); else restore the shard from a copy, or make it again with the program that wrote it");
    }
    ids[i] = static_cast<int32_t>(id);
  });
}

void FlatShard::find_document_starts(uint64_t /*first*/, std::span<const int32_t> ids,
                                     std::span<int32_t> document_starts) {
  NIBBLE_CHECK(ids.size() == document_starts.size(), "a start for every token");
  int32_t start = 0;
  for (size_t i = 0; i < document_starts.size(); ++i) {
    if (ids_.first_of_document && static_cast<uint32_t>(ids[i]) == *ids_.first_of_document) start = narrow<int32_t>(i);
    document_starts[i] = start;
  }
}

}  // namespace nibble
