#pragma once

namespace CLI {
class App;
}

namespace nibble {

// nibble train CONFIG: starts a run.
void add_train_command(CLI::App& app);

}  // namespace nibble
