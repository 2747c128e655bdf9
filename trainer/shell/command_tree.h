// The commands and options of a program as plain values, read from CLI11's own tables: what a man page and completions
// are made from, so that they can never differ from what the program accepts.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace nibble {

struct OptionEntry {
  std::vector<std::string> names = {};  // "--set", "-n"; empty for an argument without a name
  std::string argument = {};            // "RUN_DIR"; empty for an option with a name
  std::string description = {};
  std::vector<std::string> choices = {};  // of the value; empty where any text may stand
  bool takes_value = false;
  bool repeats = false;
  bool required = false;
};

struct CommandEntry {
  std::string name = {};
  std::string description = {};
  std::string footer = {};  // examples
  std::vector<OptionEntry> options = {};
  std::vector<CommandEntry> commands = {};
};

CommandEntry command_tree(const CLI::App& app);

}  // namespace nibble
