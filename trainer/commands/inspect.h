// nibble inspect: shows what a token shard or a checkpoint holds, and checks every byte of it.
#pragma once

namespace CLI {  // NOLINT(readability-identifier-naming)
class App;
}

namespace nibble {

void add_inspect_command(CLI::App& app);

}  // namespace nibble
