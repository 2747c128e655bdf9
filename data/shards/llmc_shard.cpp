// The shards of llm.c, and of modded-nanogpt, whose files are the same: 256 int32 {magic, version, tokens, 0 ...}, then
// the tokens; the row of data/shards/shard_format.h.
//   magic 20240520, version 1: GPT-2's ids (vocabulary 50,257), uint16
//   magic 20240801, version 7: Llama 3's ids (vocabulary 128,256), uint32
// llm.c's programs write a mark before every document: the end-of-text token in GPT-2's ids (50256), the
// beginning-of-text token in Llama 3's (128000). Ids of other tokenizers are written in the same layouts, so the
// vocabulary is not known for sure, and where it is another one, neither are the marks.
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
  uint32_t magic, version;
  IdType type;
  uint32_t vocab_size, eos_id, first_of_document;
  const char* tokenizer;
};
constexpr std::array<Kind, 2> kinds{Kind{20240520, 1, IdType::u16, 50257, 50256, 50256, "GPT-2"},
                                    Kind{20240801, 7, IdType::u32, 128256, 128001, 128000, "Llama 3"}};
constexpr uint32_t evaluation_magic = 20240522;

const Kind* kind_of(uint32_t magic) {
  const auto* found = std::ranges::find(kinds, magic, &Kind::magic);
  return found == kinds.end() ? nullptr : found;
}

[[noreturn]] void fail(const std::string& name, const std::string& reason) {
  throw Error(ExitCode::bad_data, fmt::format("{}: {}", name, reason),
              "restore the shard from a copy, or make it again with the program that wrote it");
}

bool recognises(const FileStart& file, const ShardOptions& /*options*/) {
  if (file.bytes.size() < 2 * sizeof(uint32_t)) return false;
  const auto magic = load_little_endian<uint32_t>(file.bytes, 0);
  return kind_of(magic) != nullptr || magic == evaluation_magic;
}

IdArray layout(const ShardFile& file, const ShardOptions& options) {
  if (file.size() < header_bytes) {
    fail(file.name(), fmt::format("{} bytes are less than the header of a token shard of llm.c", file.size()));
  }
  std::vector<std::byte> header(header_bytes);
  file.read(0, header);
  const Kind* kind = kind_of(load_little_endian<uint32_t>(header, 0));
  if (kind == nullptr) {
    throw Error(ExitCode::bad_data, fmt::format("{}: an evaluation set of llm.c (HellaSwag), no text", file.name()),
                "leave it out of the patterns");
  }
  const auto version = load_little_endian<uint32_t>(header, 4);
  if (version != kind->version) {
    throw Error(ExitCode::bad_data,
                fmt::format("{}: version {} of llm.c's {} tokens, this nibble reads version {}", file.name(), version,
                            kind->tokenizer, kind->version),
                "write the tokens with that version, or take a newer nibble");
  }
  const auto count = load_little_endian<int32_t>(header, 8);
  if (count <= 0) fail(file.name(), fmt::format("its header counts {} tokens", count));
  const uint64_t expected = header_bytes + static_cast<uint64_t>(count) * bytes_of(kind->type);
  if (file.size() != expected) {
    fail(file.name(), fmt::format("{} bytes long, but its header describes {} bytes", file.size(), expected));
  }
  IdArray ids{.format = fmt::format("llm.c version {} ({} tokens)", kind->version, kind->tokenizer),
              .offset = header_bytes,
              .tokens = static_cast<uint64_t>(count),
              .type = kind->type,
              .vocab_size = unstated_vocabulary(file.name(), kind->type, kind->vocab_size, options)};
  if (ids.vocab_size == kind->vocab_size) {
    ids.eos_id = kind->eos_id;
    ids.first_of_document = kind->first_of_document;
  } else {
    ids.format = fmt::format("llm.c version {} (other than {} tokens)", kind->version, kind->tokenizer);
  }
  return ids;
}

}  // namespace

const ShardFormat llmc_format = {
    .recognises = recognises,
    .open = [](const std::filesystem::path& path, const ShardOptions& options) -> std::unique_ptr<TokenShard> {
      return std::make_unique<FlatShard>(path, options, layout);
    }};

}  // namespace nibble
