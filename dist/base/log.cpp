#include "dist/base/log.h"

#include <unistd.h>

#include <atomic>

namespace nibble {
namespace {

std::atomic<int> log_rank{0};
std::atomic<int> log_ranks{1};

// Each line is one write call, so that lines of several ranks and threads do not mix.
void write_line(const std::string& line) {
  size_t written = 0;
  while (written < line.size()) {
    const ssize_t count = ::write(STDERR_FILENO, line.data() + written, line.size() - written);
    if (count <= 0) return;  // nobody reads standard error any more, so the line is dropped
    written += static_cast<size_t>(count);
  }
}

}  // namespace

void set_log_rank(int rank, int ranks) {
  log_rank = rank;
  log_ranks = ranks;
}

void print_error(const Error& error, std::string_view who) {
  std::string lines = fmt::format("error[E{}]: {}{}\n", static_cast<int>(error.code()), who, error.what());
  if (!error.remedy().empty()) lines += fmt::format("  fix: {}\n", error.remedy());
  write_line(lines);
}

void write_log(LogLevel level, std::string_view message) {
  if (level == LogLevel::info) {
    if (log_rank == 0) write_line(fmt::format("nibble: {}\n", message));
    return;
  }
  const char* kind = level == LogLevel::warning ? "warning" : "error";
  if (log_ranks > 1) {
    write_line(fmt::format("nibble: {} (rank {}): {}\n", kind, log_rank.load(), message));
  } else {
    write_line(fmt::format("nibble: {}: {}\n", kind, message));
  }
}

}  // namespace nibble
