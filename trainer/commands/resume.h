#pragma once

namespace CLI {
class App;
}

namespace nibble {

// nibble resume RUN_DIR: continues a run from its newest valid checkpoint, on any number of ranks.
void add_resume_command(CLI::App& app);

}  // namespace nibble
