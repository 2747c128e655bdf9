// The text that nibble tokenize reads, twice: to decide the split and the tokenizer, and to encode.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/text_inputs.h"
#include "data/text/text_reader.h"

namespace nibble {

struct TextJob {
  std::vector<TextInput> inputs;
  TextOptions options;
  uint64_t most_bad = 0;  // documents that may be left out; UINT64_MAX: all
};

struct TextTotals {
  uint64_t documents = 0;
  uint64_t bytes = 0;
  uint64_t bad = 0;  // documents left out
};

enum class BadDocuments : uint8_t { listed, counted };

// Calls visit(documents) for all text in order, in batches, and says from time to time how far it is.
TextTotals read_text(const TextJob& job, std::string_view phase, BadDocuments bad,
                     const std::function<void(std::span<const Document>)>& visit);

// Copies streams, which can be read only once, to files in the folder, and lets the inputs name these.
void store_streams(std::vector<TextInput>& inputs, const std::filesystem::path& folder);
bool has_streams(const std::vector<TextInput>& inputs);

// Returns lines that say which files these are: name, size, time of the last change.
std::string identify(const std::vector<TextInput>& inputs);

}  // namespace nibble
