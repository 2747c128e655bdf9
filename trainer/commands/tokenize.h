// nibble tokenize: text files to token shards, training a tokenizer on the way.
#pragma once

namespace CLI {  // NOLINT(readability-identifier-naming)
class App;
}

namespace nibble {

void add_tokenize_command(CLI::App& app);

}  // namespace nibble
