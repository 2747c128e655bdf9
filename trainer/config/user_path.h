// Paths as users write them, in configurations and as options of commands.
//
//   ~ or ~/...         the home directory, $HOME, at the beginning of a path only
//   $NAME, ${NAME}     the value of an environment variable
//   $$                 a dollar sign
//
// Every other use of these characters is refused. A name in a path that exists as it is written is taken as it is,
// unless the path begins with its ~ or $: so ./~ and ./$HOME are a file in the current directory, if there is one.
#pragma once

#include <string>
#include <string_view>

namespace nibble {

// Returns the path that is meant. Throws ExitCode::usage, with a remedy, for a variable that is not set or empty and
// for forms that are not in the list above.
std::string expand_path(std::string_view written);

// Does the same for a pattern of shards (data/shards/shard_pattern.h). What stands for ~ and for variables in it is
// taken literally, whatever characters it has.
std::string expand_path_in_pattern(std::string_view written);

// Returns the text of which expand_path() makes this absolute path, and expand_path_in_pattern() this absolute pattern.
std::string written_path(std::string_view path);

}  // namespace nibble
