// What a person reads while a run goes on. Lines go to standard error, except that the trainer prints its step lines to
// standard output itself. info() is silent on ranks other than 0; warnings and errors name their rank when there are
// several.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace nibble {

enum class LogLevel { info, warning, error };

// Called once by main after the communicator is known.
void set_log_rank(int rank, int ranks);
void write_log(LogLevel level, std::string_view message);

template <class... Arguments>
void log_info(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write_log(LogLevel::info, fmt::format(format, std::forward<Arguments>(arguments)...));
}
template <class... Arguments>
void log_warning(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write_log(LogLevel::warning, fmt::format(format, std::forward<Arguments>(arguments)...));
}
template <class... Arguments>
void log_error(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write_log(LogLevel::error, fmt::format(format, std::forward<Arguments>(arguments)...));
}

}  // namespace nibble
