#pragma once

namespace CLI {
class App;
}

namespace nibble {

// nibble generate RUN_DIR --prompt TEXT: text sampled from a checkpoint.
void add_generate_command(CLI::App& app);

}  // namespace nibble
