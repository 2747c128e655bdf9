#pragma once

namespace CLI {
class App;
}

namespace nibble {

// nibble bias RUN_DIR: what remains of a recipe's rounding errors when quantised backward passes are averaged.
void add_bias_command(CLI::App& app);

}  // namespace nibble
