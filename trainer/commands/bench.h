#pragma once

namespace CLI {
class App;
}

namespace nibble {

// nibble bench: what this machine can do, how near each kernel comes to it, and how fast models train.
void add_bench_command(CLI::App& app);

}  // namespace nibble
