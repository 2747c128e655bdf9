// The shards of llm.c, and of modded-nanogpt, whose files are the same: 256 int32 {magic, version, tokens, 0 ...}, then
// the tokens; the row of data/shards/shard_format.h.
//   magic 20240520, version 1: GPT-2's ids (vocabulary 50,257), uint16
//   magic 20240801, version 7: Llama 3's ids (vocabulary 128,256), uint32
// llm.c's programs write a mark before every document: the end-of-text token in GPT-2's ids (50256), the
// beginning-of-text token in Llama 3's (128000).
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "data/shards/flat_shard.h"
#include "data/shards/shard_format.h"
#include "dist/base/error.h"
#include "dist/base/little_endian.h"

namespace nibble {
namespace {

constexpr uint64_t header_bytes = 256 * sizeof(int32_t);

struct Kind {
  uint32_t magic, version, token_bytes, vocab_size, eos_id, first_of_document;
  const char* tokenizer;
};
constexpr std::array<Kind, 2> kinds{Kind{20240520, 1, 2, 50257, 50256, 50256, "GPT-2"},
                                    Kind{20240801, 7, 4, 128256, 128001, 128000, "Llama 3"}};

const Kind* kind_of(uint32_t magic) {
  const auto* found = std::ranges::find(kinds, magic, &Kind::magic);
  return found == kinds.end() ? nullptr : found;
}

[[noreturn]] void fail(const std::string& name, const std::string& reason) {
  throw Error(ExitCode::bad_data, fmt::format("{}: {}", name, reason),
              "restore the shard from a copy, or make it again with the program that wrote it");
}

bool recognises(const FileStart& file) {
  return file.bytes.size() >= sizeof(uint32_t) && kind_of(load_little_endian<uint32_t>(file.bytes, 0)) != nullptr;
}

IdArray layout(const ShardFile& file) {
  if (file.size() < header_bytes) {
    fail(file.name(), fmt::format("{} bytes are less than the header of a token shard of llm.c", file.size()));
  }
  std::vector<std::byte> header(header_bytes);
  file.read(0, header);
  const Kind* kind = kind_of(load_little_endian<uint32_t>(header, 0));
  NIBBLE_CHECK(kind != nullptr, "opened after its beginning was recognised");
  const auto version = load_little_endian<uint32_t>(header, 4);
  if (version != kind->version) {
    fail(file.name(), fmt::format("version {} of llm.c's {} tokens, this nibble reads version {}", version,
                                  kind->tokenizer, kind->version));
  }
  const auto count = load_little_endian<int32_t>(header, 8);
  if (count <= 0) fail(file.name(), fmt::format("its header counts {} tokens", count));
  const uint64_t expected = header_bytes + static_cast<uint64_t>(count) * kind->token_bytes;
  if (file.size() != expected) {
    fail(file.name(), fmt::format("{} bytes long, but its header describes {} bytes", file.size(), expected));
  }
  return {.format = fmt::format("llm.c version {} ({} tokens)", kind->version, kind->tokenizer),
          .offset = header_bytes,
          .tokens = static_cast<uint64_t>(count),
          .token_bytes = kind->token_bytes,
          .vocab_size = kind->vocab_size,
          .eos_id = kind->eos_id,
          .first_of_document = kind->first_of_document};
}

}  // namespace

const ShardFormat llmc_format = {.recognises = recognises,
                                 .open = [](const std::filesystem::path& path) -> std::unique_ptr<TokenShard> {
                                   return std::make_unique<FlatShard>(path, layout);
                                 }};

}  // namespace nibble
