#include "data/shards/foreign_shard.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "data/shards/shard.h"
#include "dist/base/error.h"
#include "dist/base/little_endian.h"

namespace nibble {
namespace {

constexpr uint64_t header_bytes = 256 * sizeof(int32_t);

[[noreturn]] void fail(const std::string& name, const std::string& reason) {
  throw Error(ExitCode::bad_data, fmt::format("{}: {}", name, reason),
              "restore the shard from a copy, or make it again with the program that wrote it");
}

}  // namespace

const LlmcShard::Kind* LlmcShard::kind_of(uint32_t magic) {
  static constexpr std::array<Kind, 2> kinds{Kind{20240520, 1, 2, 50257, 50256, 50256, "GPT-2"},
                                             Kind{20240801, 7, 4, 128256, 128001, 128000, "Llama 3"}};
  const auto* found =
      std::find_if(kinds.begin(), kinds.end(), [magic](const Kind& kind) { return kind.magic == magic; });
  return found == kinds.end() ? nullptr : found;
}

bool LlmcShard::recognises(uint32_t magic) {
  return kind_of(magic) != nullptr;
}

LlmcShard::LlmcShard(const std::filesystem::path& path) : file_(path), name_(path.string()) {
  if (file_.size() < header_bytes) {
    fail(name_, fmt::format("{} bytes are less than the header of a token shard of llm.c", file_.size()));
  }
  std::vector<std::byte> header(header_bytes);
  file_.read(0, header);
  const auto magic = load_little_endian<uint32_t>(header, 0);
  const Kind* kind = kind_of(magic);
  if (kind == nullptr) fail(name_, fmt::format("magic number {}: not a token shard of llm.c", magic));
  kind_ = *kind;
  const auto version = load_little_endian<uint32_t>(header, 4);
  if (version != kind_.version) {
    fail(name_, fmt::format("version {} of llm.c's {} tokens, this nibble reads version {}", version, kind_.tokenizer,
                            kind_.version));
  }
  const auto count = load_little_endian<int32_t>(header, 8);
  if (count <= 0) fail(name_, fmt::format("its header counts {} tokens", count));
  tokens_ = static_cast<uint64_t>(count);
  const uint64_t expected = header_bytes + tokens_ * kind_.token_bytes;
  if (file_.size() != expected) {
    fail(name_, fmt::format("{} bytes long, but its header describes {} bytes", file_.size(), expected));
  }
  identity_ = identify();
}

uint64_t LlmcShard::identify() const {
  constexpr uint64_t part = 65536;
  std::vector<std::byte> content(sizeof(uint64_t));
  store_little_endian(std::span(content), 0, file_.size());
  for (const uint64_t offset : {uint64_t{0}, file_.size() - std::min(part, file_.size())}) {
    std::vector<std::byte> piece(std::min(part, file_.size() - offset));
    file_.read(offset, piece);
    content.insert(content.end(), piece.begin(), piece.end());
  }
  return hash64(content);
}

void LlmcShard::read(uint64_t first, std::span<int32_t> ids) {
  NIBBLE_CHECK(first <= tokens_ && ids.size() <= tokens_ - first, "read beyond the shard");
  const uint64_t offset = header_bytes + first * kind_.token_bytes;
  buffer_.resize(ids.size() * kind_.token_bytes);
  file_.read(offset, buffer_);
  for (size_t i = 0; i < ids.size(); ++i) {
    const uint32_t id = kind_.token_bytes == 2 ? load_little_endian<uint16_t>(buffer_, 2 * i)
                                               : load_little_endian<uint32_t>(buffer_, 4 * i);
    if (id >= kind_.vocab_size) {
      fail(name_, fmt::format("token {} (byte {}) has id {}, but the vocabulary size is {}", first + i,
                              offset + i * kind_.token_bytes, id, kind_.vocab_size));
    }
    ids[i] = static_cast<int32_t>(id);
  }
}

void LlmcShard::find_document_starts(uint64_t /*first*/, std::span<const int32_t> ids,
                                     std::span<int32_t> document_starts) {
  NIBBLE_CHECK(ids.size() == document_starts.size(), "a start for every token");
  int32_t start = 0;
  for (size_t i = 0; i < document_starts.size(); ++i) {
    if (static_cast<uint32_t>(ids[i]) == kind_.first_of_document) start = narrow<int32_t>(i);
    document_starts[i] = start;
  }
}

std::string LlmcShard::describe() const {
  return fmt::format("llm.c version {} ({} tokens)", kind_.version, kind_.tokenizer);
}

std::unique_ptr<TokenShard> open_token_shard(const std::filesystem::path& path) {
  const InputFile file(path);
  std::array<std::byte, sizeof(uint32_t)> start = {};
  if (file.size() >= start.size()) file.read(0, start);
  if (LlmcShard::recognises(load_little_endian<uint32_t>(start, 0))) return std::make_unique<LlmcShard>(path);
  return std::make_unique<ShardReader>(path);
}

}  // namespace nibble
