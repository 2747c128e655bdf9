#pragma once

namespace CLI {
class App;
}

namespace nibble {

// nibble compare BASE RUN...: how far each run's loss lies from the baseline's.
void add_compare_command(CLI::App& app);

}  // namespace nibble
