// Feeds arbitrary bytes to the readers of token files of other programs. An Error for damaged data, or for a vocabulary
// that is not given, is the only way out. Build and run:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz/foreign_shard_fuzz.cpp
//   data/shards/*.cpp \
//     data/file_kind.cpp dist/base/{error,file,file_descriptor,hash,text,utf8}.cpp -lfmt -lxxhash -o foreign_shard_fuzz
//   NIBBLE_FUZZ=megatron ./foreign_shard_fuzz -max_len=2000 -rss_limit_mb=512 -timeout=5 CORPUS
// NIBBLE_FUZZ is llmc, megatron, npy or bare. The beginnings are made to fit, or the fuzzer would hardly get past them.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "data/shards/token_shard.h"
#include "dist/base/error.h"

namespace {

using namespace std::string_view_literals;

std::string_view format() {
  const char* name = std::getenv("NIBBLE_FUZZ");
  if (name == nullptr) std::abort();
  return name;
}

std::filesystem::path directory() {
  static const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("nibble-fuzz-" + std::to_string(::getpid()));
  std::filesystem::create_directories(path);
  return path;
}

void put(const std::filesystem::path& path, std::string_view content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  if (!file.flush()) std::abort();
}

void begin_with(std::string& content, std::string_view start) {
  content.replace(0, std::min(start.size(), content.size()), start);
}

// Reads everything in pieces of different sizes.
void read_all(nibble::TokenShard& shard) {
  std::vector<int32_t> ids;
  std::vector<int32_t> starts;
  for (uint64_t first = 0, count = 1; first < shard.tokens(); first += ids.size(), count = count * 3 % 1009) {
    ids.resize(std::min(count, shard.tokens() - first));
    starts.resize(ids.size());
    shard.read(first, ids);
    shard.find_document_starts(first, ids, starts);
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0 || static_cast<uint32_t>(ids[i]) >= shard.vocab_size() || starts[i] < 0 ||
          starts[i] > static_cast<int32_t>(i)) {
        std::abort();
      }
    }
  }
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): the name that libFuzzer calls.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  if (size < 4) return 0;
  const uint8_t choice = input[0];
  std::string content(reinterpret_cast<const char*>(input) + 1, size - 1);
  nibble::ShardOptions options{.vocab_size = choice & 1U ? 70000U : 0U, .model_vocab_size = choice & 2U ? 300U : 0U};
  std::filesystem::path path = directory() / "m.bin";
  if (format() == "megatron") {
    const size_t cut = std::min<size_t>(static_cast<uint8_t>(content[0]) * size_t{4}, content.size() - 1);
    std::string index = content.substr(cut);
    if ((choice & 4U) == 0) begin_with(index, "MMIDIDX\0\0\1\0\0\0\0\0\0\0"sv);
    put(directory() / "m.idx", index);
    content = content.substr(1, cut == 0 ? 0 : cut - 1);
  } else if (format() == "llmc") {
    if ((choice & 4U) == 0) {
      begin_with(content, (choice & 8U) != 0 ? "\x88\xd8\x34\x01\1\0\0\0"sv : "\xa1\xd9\x34\x01\7\0\0\0"sv);
    }
  } else if (format() == "npy") {
    begin_with(content, "\x93NUMPY"sv);
  } else {
    options.token_bytes = 1U << (choice % 3U);
  }
  put(path, content);
  try {
    read_all(*nibble::open_token_shard(path, options));
  } catch (const nibble::Error& error) {
    if (error.code() != nibble::ExitCode::bad_data && error.code() != nibble::ExitCode::bad_config) std::abort();
  }
  return 0;
}
