// Feeds arbitrary bytes to the text reader as a file of any kind. An Error is the only way out for a damaged file, and
// what comes out is UTF-8. Build and run:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz/text_fuzz.cpp data/file_kind.cpp \
//     data/patterns/{code_point_set,unicode_table}.cpp
//     data/text/{byte_source,compressed_source,json_line,text_reader,document_split,text_cut}.cpp \
//     dist/base/{file,hash,error,log,utf8,file_descriptor,text}.cpp -lfmt -lxxhash -lzstd -larchive -lsimdjson
//     -lutf8proc -o text_fuzz
//   ./text_fuzz -max_len=20000 -rss_limit_mb=4096 -timeout=10 CORPUS
// The first byte chooses how the rest is read.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "data/text/text_reader.h"
#include "dist/base/error.h"
#include "dist/base/utf8.h"

namespace {

using nibble::DocumentRule;

// A few bytes can be decompressed to more than anybody waits for.
constexpr uint64_t most_text_bytes = 64ULL << 20U;

void read_all(const std::string& path, unsigned choice) {
  nibble::TextOptions options;
  options.documents = static_cast<DocumentRule>(choice % 3);
  options.replace_invalid = (choice & 4U) != 0;
  options.max_document_bytes = (choice & 8U) != 0 ? 100 : 1U << 20U;
  const char* name = (choice & 16U) != 0 ? "a.jsonl" : (choice & 32U) != 0 ? "a.txt.gz" : "a";
  nibble::TextReader reader(path, name, options);
  uint64_t bytes = 0;
  for (nibble::RawDocument raw; bytes < most_text_bytes && reader.next(raw); raw = {}) {
    bytes += raw.text.size() + 1;
    if (raw.text.size() > options.max_document_bytes) std::abort();
    const nibble::Document document = nibble::parse_document(std::move(raw), options);
    if (!nibble::is_utf8(document.text) || (!document.fault.empty() && !document.text.empty())) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static const int file = memfd_create("text", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  if (ftruncate(file, 0) != 0 || pwrite(file, data + 1, size - 1, 0) != static_cast<ssize_t>(size - 1)) return 0;
  try {
    read_all(path, data[0]);
  } catch (const nibble::Error& error) {
    if (error.code() != nibble::ExitCode::bad_data && error.code() != nibble::ExitCode::out_of_memory) std::abort();
  }
  return 0;
}
