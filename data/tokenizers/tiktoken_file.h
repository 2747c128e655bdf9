// tiktoken's rank files: a line a token, its bytes in base64 and its rank, which is its id.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "data/tokenizers/tokenizer.h"

namespace nibble {

// Whether the first line is one of a rank file.
bool is_tiktoken_file(std::string_view file);

// The pattern that cuts text into words is known where the number of ranks is that of a published file; otherwise
// options.pattern says it. The end of a document is the id after the last rank. Throws ExitCode::bad_data if the file
// is damaged, and ExitCode::usage if the pattern must be given or cannot be used.
std::unique_ptr<Tokenizer> load_tiktoken_file(std::string file, const std::string& name,
                                              const TokenizerOptions& options);

// Returns a tokenizer.json that gives the same ids; empty if its dialect of regular expressions cannot say the pattern.
// The end of a document is <|endoftext|> there. Throws what load_tiktoken_file() throws.
std::string tiktoken_as_json(const std::string& file, const std::string& name, const TokenizerOptions& options);

}  // namespace nibble
