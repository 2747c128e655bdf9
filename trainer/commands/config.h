#pragma once

namespace CLI {
class App;
}

namespace nibble {

// nibble config {check,show,schema,reference}: what configurations may say, and what one says.
void add_config_command(CLI::App& app);

}  // namespace nibble
