// Feeds arbitrary bytes to the shard reader. An Error is the only way out for a damaged file. Build and run:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz/shard_fuzz.cpp data/shards/*.cpp \
//     data/file_kind.cpp dist/base/{error,file,file_descriptor,hash,text,utf8}.cpp -lfmt -lxxhash -o shard_fuzz
//   ./shard_fuzz -max_len=20000 -rss_limit_mb=512 -timeout=5 CORPUS
// The hashes are made to fit before reading, or the fuzzer would never get past them.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "data/shards/shard.h"
#include "dist/base/error.h"
#include "dist/base/little_endian.h"

namespace {

using nibble::hash64;
using nibble::ShardHeader;

// Repairs magic, version and hashes as far as the sizes in the header allow.
void repair(std::vector<std::byte>& data) {
  if (data.size() < ShardHeader::bytes) return;
  const std::span<std::byte> view(data);
  constexpr uint64_t magic_and_version[2] = {0x0A1A454C4242494EULL, 1};
  nibble::store_little_endian(view, 0, magic_and_version[0]);
  nibble::store_little_endian(view, 8, static_cast<uint32_t>(magic_and_version[1]));
  const auto seal = [&] {
    nibble::store_little_endian(view, 4088, hash64(std::span<const std::byte>(data).first(4088)));
  };
  seal();
  try {
    const ShardHeader header = ShardHeader::parse(data, data.size(), "fuzz");
    const std::span<const std::byte> bytes(data);
    for (uint64_t block = 0; block < header.blocks(); ++block) {
      const uint64_t begin = ShardHeader::bytes + block * header.block_bytes;
      const uint64_t end = std::min(begin + header.block_bytes, header.documents_offset());
      nibble::store_little_endian(view, header.hashes_offset() + 8 * block, hash64(bytes.subspan(begin, end - begin)));
    }
    const auto table = bytes.subspan(header.documents_offset(), header.documents * 8);
    nibble::store_little_endian(view, data.size() - 8, hash64(table));
    nibble::store_little_endian(view, 64, hash64(bytes.subspan(header.hashes_offset())));
    seal();
  } catch (const nibble::Error&) {
    // The sizes do not fit: the reader must refuse the file.
  }
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): the name that libFuzzer calls.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  const auto* begin = reinterpret_cast<const std::byte*>(input);
  std::vector<std::byte> data(begin, begin + size);
  if (!data.empty() && (data.back() & std::byte{1}) == std::byte{0}) repair(data);
  const int descriptor = ::memfd_create("shard", 0);
  if (descriptor < 0 || ::write(descriptor, data.data(), data.size()) != static_cast<ssize_t>(data.size()))
    std::abort();
  try {
    nibble::ShardReader reader("/proc/self/fd/" + std::to_string(descriptor));
    const uint64_t damaged = reader.verify([](const std::string&) {}, [](std::span<const int32_t>) {});
    std::vector<int32_t> ids(reader.header().tokens);
    if (damaged == 0) reader.read(0, ids);
  } catch (const nibble::Error& error) {
    if (error.code() != nibble::ExitCode::bad_data) std::abort();
  }
  ::close(descriptor);
  return 0;
}
