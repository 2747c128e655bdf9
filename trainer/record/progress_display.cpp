#include "trainer/record/progress_display.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "dist/base/log.h"
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

std::string step_text(const StepProgress& progress) {
  return fmt::format("{:>{}}/{}", progress.metrics.step, fmt::formatted_size("{}", progress.total_steps),
                     progress.total_steps);
}

std::string rate_text(const StepMetrics& metrics) {
  return with_thousands(static_cast<uint64_t>(metrics.tokens_per_second)) + " tok/s";
}

std::string skipped_text(const StepMetrics& metrics) {
  return metrics.skipped_total > 0 ? fmt::format("  skipped {}", metrics.skipped_total) : "";
}

}  // namespace

std::string progress_line(const StepProgress& progress) {
  const StepMetrics& metrics = progress.metrics;
  return fmt::format("step {}  tokens {}  loss {:.4f}  grad {:.3f}  lr {:.2e}  {}  MFU {:.1f} %  ETA {}{}",
                     step_text(progress), with_thousands(metrics.tokens), metrics.loss, metrics.grad_norm,
                     metrics.learning_rate, rate_text(metrics), 100 * metrics.mfu,
                     duration_text(progress.remaining_seconds), skipped_text(metrics));
}

std::string progress_bar(const StepProgress& progress, size_t width) {
  const StepMetrics& metrics = progress.metrics;
  struct Figure {
    std::string text;
    int importance;  // figures with the smallest are left out first
  };
  const auto figures = std::to_array<Figure>({
      {step_text(progress), 5},
      {fmt::format("  loss {:.4f}", metrics.loss), 5},
      {fmt::format("  grad {:.3f}", metrics.grad_norm), 1},
      {fmt::format("  lr {:.2e}", metrics.learning_rate), 2},
      {"  " + rate_text(metrics), 6},
      {fmt::format("  MFU {:.1f} %", 100 * metrics.mfu), 3},
      {"  ETA " + duration_text(progress.remaining_seconds), 6},
      {skipped_text(metrics), 4},
  });
  const auto text_of = [&](int least) {
    std::string text;
    for (const Figure& figure : figures) {
      if (figure.importance >= least) text += figure.text;
    }
    return text;
  };
  constexpr size_t frame = 3;  // "[", "]" and a space
  constexpr size_t narrowest = 10, widest = 20;
  int least = 0;
  while (least < 5 && text_of(least).size() + frame + narrowest > width) ++least;
  std::string text = text_of(least);
  if (text.size() + frame + 1 <= width) {
    const size_t bar_width = std::min(widest, width - frame - text.size());
    const size_t filled = bar_width * metrics.step / std::max<uint64_t>(1, progress.total_steps);
    return "[" + std::string(filled, '=') + std::string(bar_width - filled, ' ') + "] " + text;
  }
  while (least < 6 && text.size() > width) text = text_of(++least);
  text.resize(std::min(text.size(), width));
  return text;
}

ProgressDisplay::ProgressDisplay(const RunConfig& config, uint64_t first_step, bool shown)
    : progress_(shown && !is_quiet() ? config.log.progress : RunConfig::Progress::none),
      every_(static_cast<uint64_t>(config.log.every)),
      total_steps_(static_cast<uint64_t>(config.train.steps)),
      first_step_(first_step),
      tokens_per_step_(static_cast<double>(config.train.tokens_per_step)) {
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
  StepProgress progress{.metrics = metrics,
                        .total_steps = total_steps_,
                        .remaining_seconds = mean_step_seconds_ * static_cast<double>(total_steps_ - metrics.step)};
  if (progress_ == RunConfig::Progress::bar) {
    print("\r\033[K" + progress_bar(progress, terminal_width() - 1));
    bar_shown_ = true;
    return;
  }
  seconds_since_line_ += step_seconds;
  ++steps_since_line_;
  if (metrics.step % every_ != 0 && metrics.step != total_steps_) return;
  const double seconds = std::exchange(seconds_since_line_, 0);
  const auto steps = static_cast<double>(std::exchange(steps_since_line_, 0));
  if (steps > 1) {
    const double rate = tokens_per_step_ * steps / seconds;
    progress.metrics.mfu *= rate / metrics.tokens_per_second;
    progress.metrics.tokens_per_second = rate;
  }
  print(progress_line(progress) + "\n");
}

void ProgressDisplay::line(const std::string& text) {
  if (progress_ == RunConfig::Progress::none) return;
  clear_bar();
  print(text + "\n");
}

}  // namespace nibble
