// Files of configs/ that are given by name: recipes and models.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// Returns whether a value is the path of a file, not a name: it ends in .yaml or .yml, or holds a slash.
bool is_config_path(std::string_view text);

// Returns the directories in which files of a kind ("recipes", "models") are looked for by name: `config_directory`,
// that of the file which names them; `config_directory`/../KIND; configs/KIND in the current directory;
// $NIBBLE_CONFIG_DIR/KIND; and those that are installed with nibble.
std::vector<std::string> config_directories(const std::string& kind, const std::string& config_directory);

// Returns DIRECTORY/NAME.yaml of the first directory that has it. Throws ExitCode::missing_input with the list of
// directories if none has; `what` is the word for the file in the message: "recipe".
std::string find_config_file(const std::string& what, const std::string& name,
                             const std::vector<std::string>& directories);

}  // namespace nibble
