// Feeds arbitrary bytes to the loader of tokenizers as a file of any kind, and encodes and decodes with what loads. An
// Error with a remedy is the only way out for a damaged file; ids are in the vocabulary, and what is decoded is UTF-8.
// Build and run:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz/tokenizer_fuzz.cpp \
//     data/{patterns,tokenizers}/*.cpp data/text/text_cut.cpp \
//     dist/base/{file,hash,error,log,utf8,file_descriptor,signals,text}.cpp \
//     dist/device/{thread_pool,available_threads}.cpp -lfmt -lxxhash -lsentencepiece -lsentencepiece_train \
//     -lpcre2-8 -lutf8proc -o tokenizer_fuzz
//   ./tokenizer_fuzz -max_len=60000 -rss_limit_mb=2048 -timeout=20 CORPUS tests/data/tokenizers
// The first byte chooses the options and is no part of the file unless it is '{'; the last 64 bytes are also a text.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "data/tokenizers/tokenizer.h"
#include "dist/base/error.h"
#include "dist/base/utf8.h"

namespace {

constexpr const char* patterns[] = {"", "gpt2", "cl100k", "o200k", "llama3", "\\p{L}+|[^\\s]|\\s+(?!x)|."};

void check_text(const nibble::Tokenizer& tokenizer, const std::string& text) {
  const auto ids = tokenizer.encode(text);
  for (const int32_t id : ids) {
    if (id < 0 || static_cast<uint32_t>(id) >= tokenizer.vocab_size()) std::abort();
  }
  const std::string decoded = tokenizer.decode(ids);
  if (!nibble::is_utf8(decoded)) std::abort();
  const auto bytes = tokenizer.token_bytes();
  if (!bytes.empty() && bytes.size() != tokenizer.vocab_size()) std::abort();
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): the name that libFuzzer calls.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  std::string file(reinterpret_cast<const char*>(input), size);
  nibble::TokenizerOptions options;
  if (!file.empty() && file.front() != '{') {
    const auto choice = static_cast<unsigned char>(file.front());
    options.pattern = patterns[choice % std::size(patterns)];
    if (choice >= 128) options.end_of_document = "a";
    file.erase(0, 1);
  }
  const int descriptor = ::memfd_create("tokenizer", 0);
  if (descriptor < 0 || ::write(descriptor, file.data(), file.size()) != static_cast<ssize_t>(file.size()))
    std::abort();
  try {
    const auto tokenizer = nibble::Tokenizer::load("/proc/self/fd/" + std::to_string(descriptor), options);
    std::string text = file.substr(file.size() - std::min<size_t>(file.size(), 64));
    nibble::replace_invalid_utf8(text);
    for (const std::string& each :
         {text, std::string("The  people's 1234 \n\n caf\xC3\xA9 \xE6\x97\xA5\xE6\x9C\xAC <|endoftext|>"),
          std::string(3000, 'a') + std::string(3000, ' ')}) {
      check_text(*tokenizer, each);
    }
  } catch (const nibble::Error& error) {
    const bool is_expected = error.code() == nibble::ExitCode::bad_data || error.code() == nibble::ExitCode::usage;
    if (!is_expected || error.remedy().empty()) std::abort();
  }
  ::close(descriptor);
  return 0;
}
