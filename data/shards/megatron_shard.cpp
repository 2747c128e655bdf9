#include "data/shards/megatron_shard.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "data/shards/shard_format.h"
#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/little_endian.h"

namespace nibble {
namespace {

constexpr std::string_view magic("MMIDIDX\0\0", 9);
constexpr uint64_t header_bytes = 34;
constexpr uint64_t version = 1;

[[noreturn]] void fail(const std::string& name, const std::string& what) {
  throw Error(ExitCode::bad_data, fmt::format("{}: {}", name, what),
              "restore both files of the pair from a copy, or make them again with Megatron's tools");
}

IdType type_of_code(const std::string& name, unsigned code) {
  switch (code) {
    case 1: return IdType::u8;
    case 2: return IdType::i8;
    case 3: return IdType::i16;
    case 4: return IdType::i32;
    case 5: return IdType::i64;
    case 6:
    case 7:
      throw Error(
          ExitCode::bad_data,
          fmt::format("{}: a data set of {} numbers, which are no token ids", name, code == 6 ? "float64" : "float32"),
          "name a data set of tokens");
    case 8: return IdType::u16;
    default: fail(name, fmt::format("no type of numbers has code {}", code));
  }
}

bool begins_as_index(std::span<const std::byte> start) {
  return start.size() >= magic.size() && std::memcmp(start.data(), magic.data(), magic.size()) == 0;
}

bool is_index(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  const InputFile file(path);
  std::array<std::byte, magic.size()> start{};
  return file.read_some(0, start) == start.size() && begins_as_index(start);
}

std::filesystem::path with_ending(const std::filesystem::path& prefix, const char* ending) {
  return prefix.string() + ending;
}

std::filesystem::path index_of(std::filesystem::path bin) {
  return bin.replace_extension(".idx");
}

// Reads an array of a file from its beginning to its end, in pieces.
template <class Integer>
class ArrayStream {
 public:
  ArrayStream(const InputFile& file, uint64_t offset, uint64_t count) : file_(file), offset_(offset), left_(count) {}
  Integer next() {
    if (at_ == piece_.size()) refill();
    return piece_[at_++];
  }

 private:
  void refill() {
    constexpr uint64_t most = 1U << 16U;
    NIBBLE_CHECK(left_ > 0, "an array is read to its end");
    piece_.resize(std::min(most, left_));
    file_.read(offset_, std::as_writable_bytes(std::span(piece_)));
    offset_ += piece_.size() * sizeof(Integer);
    left_ -= piece_.size();
    at_ = 0;
  }

  const InputFile& file_;
  uint64_t offset_;
  uint64_t left_;
  std::vector<Integer> piece_;
  size_t at_ = 0;
};

uint64_t hash_of(const InputFile& file) {
  uint64_t hash = 0;
  std::vector<std::byte> piece(1U << 20U);
  for (uint64_t offset = 0; offset < file.size(); offset += piece.size()) {
    piece.resize(std::min<uint64_t>(piece.size(), file.size() - offset));
    file.read(offset, piece);
    hash = hash64(piece, hash);
  }
  return hash;
}

}  // namespace

std::optional<std::filesystem::path> megatron_pair(const std::filesystem::path& path) {
  std::filesystem::path prefix = path;
  if (path.extension() == ".bin" || path.extension() == ".idx") {
    prefix.replace_extension();
  } else if (std::filesystem::exists(path)) {
    return std::nullopt;
  }
  if (!is_index(with_ending(prefix, ".idx"))) return std::nullopt;
  return with_ending(prefix, ".bin");
}

struct MegatronShard::Index {
  std::string name;
  IdType type = IdType::u16;
  uint64_t tokens = 0;
  std::vector<uint64_t> document_ends = {};
  uint64_t hash = 0;
};

MegatronShard::Index MegatronShard::read_index(const std::filesystem::path& path) {
  const InputFile file(path);
  Index index{.name = path.string()};
  if (file.size() < header_bytes) fail(index.name, fmt::format("{} bytes are less than its header", file.size()));
  std::array<std::byte, header_bytes> header{};
  file.read(0, header);
  if (!begins_as_index(header)) fail(index.name, "no index of Megatron's (by its first bytes)");
  const auto found_version = load_little_endian<uint64_t>(header, 9);
  if (found_version != version) {
    throw Error(ExitCode::bad_data,
                fmt::format("{}: version {} of Megatron's index, this nibble reads version {}", index.name,
                            found_version, version),
                "write the data set with that version, or take a newer nibble");
  }
  index.type = type_of_code(index.name, static_cast<unsigned>(header[17]));
  const auto sequences = load_little_endian<uint64_t>(header, 18);
  const auto marks = load_little_endian<uint64_t>(header, 26);
  if (sequences == 0) fail(index.name, "it has no sequences");
  constexpr uint64_t most = 1ULL << 56U;
  const uint64_t expected = sequences > most || marks > most ? 0 : header_bytes + 12 * sequences + 8 * marks;
  if (file.size() != expected && file.size() != expected + sequences) {
    fail(index.name, fmt::format("{} bytes long, which is not what {} sequences and {} document marks need",
                                 file.size(), sequences, marks));
  }
  ArrayStream<int32_t> lengths(file, header_bytes, sequences);
  ArrayStream<int64_t> positions(file, header_bytes + 4 * sequences, sequences);
  ArrayStream<int64_t> documents(file, header_bytes + 12 * sequences, marks);
  uint64_t marks_read = 0;
  const auto next_mark = [&](uint64_t from) -> uint64_t {
    if (marks_read == marks) return sequences + 1;
    const int64_t mark = documents.next();
    if (mark < static_cast<int64_t>(from) || mark > static_cast<int64_t>(sequences)) {
      fail(index.name, fmt::format("document mark {} is {}, not from {} to {}", marks_read, mark, from, sequences));
    }
    ++marks_read;
    return static_cast<uint64_t>(mark);
  };
  const auto end_document = [&] {
    const uint64_t before = index.document_ends.empty() ? 0 : index.document_ends.back();
    if (index.tokens > before) index.document_ends.push_back(index.tokens);
  };
  uint64_t mark = next_mark(0);
  if (marks > 0 && mark != 0) fail(index.name, fmt::format("the first document begins with sequence {}", mark));
  for (uint64_t sequence = 0; sequence < sequences; ++sequence) {
    while (mark == sequence) {
      end_document();
      mark = next_mark(sequence);
    }
    const int32_t length = lengths.next();
    const int64_t position = positions.next();
    const uint64_t byte = index.tokens * bytes_of(index.type);
    if (length < 0) fail(index.name, fmt::format("sequence {} has {} tokens", sequence, length));
    if (position != static_cast<int64_t>(byte)) {
      fail(index.name, fmt::format("sequence {} begins at byte {}, not at byte {}, where the one before it ends",
                                   sequence, position, byte));
    }
    index.tokens += static_cast<uint64_t>(length);
  }
  while (mark == sequences) mark = next_mark(sequences);
  end_document();
  if (index.tokens == 0) fail(index.name, "its sequences have no tokens");
  if (file.size() != expected) {
    ArrayStream<int8_t> modes(file, expected, sequences);
    for (uint64_t sequence = 0; sequence < sequences; ++sequence) {
      if (const int mode = modes.next(); mode != 0) {
        throw Error(
            ExitCode::bad_data,
            fmt::format("{}: sequence {} has mode {}: a data set of more than text", index.name, sequence, mode),
            "name a data set of text");
      }
    }
  }
  index.hash = hash_of(file);
  return index;
}

std::unique_ptr<MegatronShard> MegatronShard::open(const std::filesystem::path& path, const ShardOptions& options) {
  const Index index = read_index(index_of(path));
  if (!std::filesystem::exists(path)) {
    fail(path.string(), fmt::format("no such file, but {} is its index", index.name));
  }
  auto file = std::make_unique<ShardFile>(path);
  const uint64_t expected = index.tokens * bytes_of(index.type);
  if (file->size() != expected) {
    fail(file->name(), fmt::format("{} bytes long, but its index {} describes {} tokens of {} bytes, {} bytes",
                                   file->size(), index.name, index.tokens, bytes_of(index.type), expected));
  }
  const uint32_t vocab_size = unstated_vocabulary(file->name(), index.type, 0, options);
  IdArray ids{.format = fmt::format("Megatron version {} ({})", version, name_of(index.type)),
              .tokens = index.tokens,
              .type = index.type,
              .vocab_size = vocab_size};
  return std::unique_ptr<MegatronShard>(new MegatronShard(std::move(file), std::move(ids), index));
}

MegatronShard::MegatronShard(std::unique_ptr<ShardFile> file, IdArray ids, const Index& index)
    : FlatShard(std::move(file), std::move(ids), index.hash),
      documents_(index.document_ends.size()),
      index_hash_(index.hash) {}

void MegatronShard::find_document_starts(uint64_t first, std::span<const int32_t> ids,
                                         std::span<int32_t> document_starts) {
  NIBBLE_CHECK(ids.size() == document_starts.size(), "a start for every token");
  if (document_ends_.empty()) {
    Index index = read_index(index_of(name()));
    if (index.hash != index_hash_) fail(index.name, "it was changed while it is in use");
    document_ends_ = std::move(index.document_ends);
  }
  find_starts_in_table(document_ends_, first, document_starts);
}

// The first bytes of PREFIX.bin are ids, so its index tells what it is.
const ShardFormat megatron_format = {
    .recognises =
        [](const FileStart& file, const ShardOptions&) {
          return begins_as_index(file.bytes) || megatron_pair(file.path).has_value();
        },
    .open = [](const std::filesystem::path& path, const ShardOptions& options) -> std::unique_ptr<TokenShard> {
      const std::optional<std::filesystem::path> bin = megatron_pair(path);
      if (!bin) fail(path.string(), "an index of Megatron's whose name does not end in .idx");
      return MegatronShard::open(*bin, options);
    }};

}  // namespace nibble
