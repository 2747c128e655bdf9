#pragma once

namespace CLI {
class App;
}

namespace nibble {

// nibble evaluate RUN_DIR: the loss of a checkpoint on the validation shards.
void add_evaluate_command(CLI::App& app);

}  // namespace nibble
