#include "dist/base/log.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>

namespace nibble {
namespace {

std::atomic<int> log_rank{0};
std::atomic<int> log_ranks{1};
std::atomic<bool> quiet{false};

// Each line is one write call, so that lines of several ranks and threads do not mix.
void write_line(const std::string& line) {
  size_t written = 0;
  while (written < line.size()) {
    const ssize_t count = ::write(STDERR_FILENO, line.data() + written, line.size() - written);
    if (count <= 0) return;  // nobody reads standard error any more, so the line is dropped
    written += static_cast<size_t>(count);
  }
}

bool has_colours() {
  static const bool colours = [] {
    const char* const none = std::getenv("NO_COLOR");
    const char* const terminal = std::getenv("TERM");
    const bool refused = none != nullptr && *none != '\0';
    return !refused && terminal != nullptr && std::string_view(terminal) != "dumb" && ::isatty(STDERR_FILENO) == 1;
  }();
  return colours;
}

// The escape sequences are those of ECMA-48: bold red and bold yellow.
std::string red(std::string_view text) {
  return has_colours() ? fmt::format("\033[1;31m{}\033[0m", text) : std::string(text);
}
std::string yellow(std::string_view text) {
  return has_colours() ? fmt::format("\033[1;33m{}\033[0m", text) : std::string(text);
}

}  // namespace

void set_quiet() {
  quiet = true;
}

bool is_quiet() {
  return quiet;
}

void set_log_rank(int rank, int ranks) {
  log_rank = rank;
  log_ranks = ranks;
}

void print_error(const Error& error, std::string_view who) {
  const std::string kind = red(fmt::format("error[E{}]", static_cast<int>(error.code())));
  std::string lines = fmt::format("{}: {}{}\n", kind, who, error.what());
  if (!error.remedy().empty()) lines += fmt::format("  fix: {}\n", error.remedy());
  write_line(lines);
}

void write_log(LogLevel level, std::string_view message) {
  if (level == LogLevel::info) {
    if (log_rank == 0 && !quiet) write_line(fmt::format("nibble: {}\n", message));
    return;
  }
  const std::string kind = level == LogLevel::warning ? yellow("warning") : red("error");
  if (log_ranks > 1) {
    write_line(fmt::format("nibble: {} (rank {}): {}\n", kind, log_rank.load(), message));
  } else {
    write_line(fmt::format("nibble: {}: {}\n", kind, message));
  }
}

}  // namespace nibble
