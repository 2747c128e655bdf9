// Messages for the person who watches a run. They go to standard error; only the trainer's step lines go to standard
// output. log_info() is silent on ranks other than 0; warnings and errors name their rank when there are several. Where
// standard error is a terminal, "warning" and "error" have colours, unless NO_COLOR is set or TERM is "dumb".
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "dist/base/error.h"
#include "dist/base/log_line.h"

namespace nibble {

// Sets the rank that messages name. main calls it once, after the communicator is known.
void set_log_rank(int rank, int ranks);

// Makes log_info() silent, and whatever else asks is_quiet(); warnings and errors are printed.
void set_quiet();
bool is_quiet();

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

// Prints `error[E65]: what` and `  fix: remedy`. `who` stands before what: "rank 3: " or nothing.
void print_error(const Error& error, std::string_view who = {});

}  // namespace nibble
