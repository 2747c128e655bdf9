#include "trainer/report/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "dist/base/text.h"
#include "dist/ranks/communicator.h"

namespace nibble {

namespace {

size_t terminal_width() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void print(const std::string& text) {
  // Errors are ignored and SIGPIPE is off: a reader that has left must neither stop the training nor make it fail, and
  // metrics.jsonl holds everything that is printed here.
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
  std::clearerr(stdout);
}

}  // namespace

std::string duration_text(double seconds) {
  const auto whole = static_cast<uint64_t>(std::llround(std::max(0.0, seconds)));
  if (whole < 60) return fmt::format("{}s", whole);
  if (whole < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
}

ProgressDisplay::ProgressDisplay(RunConfig::Progress progress, uint64_t total_steps, uint64_t first_step)
    : progress_(progress), total_steps_(total_steps), first_step_(first_step) {
  if (progress_ == RunConfig::Progress::automatic) {
    const bool terminal = isatty(STDOUT_FILENO) != 0 && !under_launcher();
    progress_ = terminal ? RunConfig::Progress::bar : RunConfig::Progress::plain;
  }
}

ProgressDisplay::~ProgressDisplay() {
  if (bar_shown_) print("\n");
}

void ProgressDisplay::clear_bar() {
  if (bar_shown_) print("\r\033[K");
  bar_shown_ = false;
}

void ProgressDisplay::step(const StepMetrics& metrics, double step_seconds) {
  if (progress_ == RunConfig::Progress::none) return;
  mean_step_seconds_ = metrics.step == first_step_ + 1 ? step_seconds : 0.9 * mean_step_seconds_ + 0.1 * step_seconds;
  const double remaining = mean_step_seconds_ * static_cast<double>(total_steps_ - metrics.step);
  std::string text = fmt::format(
      "step {:>{}}/{}  tokens {}  loss {:.4f}  grad {:.3f}  lr {:.2e}  {} tok/s  MFU {:.1f} %  ETA {}", metrics.step,
      fmt::formatted_size("{}", total_steps_), total_steps_, with_thousands(metrics.tokens), metrics.loss,
      metrics.grad_norm, metrics.learning_rate, with_thousands(static_cast<uint64_t>(metrics.tokens_per_second)),
      100 * metrics.mfu, duration_text(remaining));
  if (metrics.skipped_total > 0) text += fmt::format("  skipped {}", metrics.skipped_total);
  if (progress_ == RunConfig::Progress::plain) {
    print(text + "\n");
    return;
  }
  constexpr size_t bar_width = 20;
  const size_t filled = bar_width * metrics.step / std::max<uint64_t>(1, total_steps_);
  std::string bar = "[" + std::string(filled, '=') + std::string(bar_width - filled, ' ') + "] " + text;
  bar.resize(std::min(bar.size(), terminal_width() - 1));
  print("\r\033[K" + bar);
  bar_shown_ = true;
}

void ProgressDisplay::line(const std::string& text) {
  if (progress_ == RunConfig::Progress::none) return;
  clear_bar();
  print(text + "\n");
}

}  // namespace nibble
