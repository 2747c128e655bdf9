// nibble control: asks a run that trains for a checkpoint, another learning rate, or its end.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/signals.h"
#include "trainer/commands/commands.h"
#include "trainer/directory/run_control.h"

namespace nibble {
namespace {

struct ControlOptions {
  std::string run_directory;
  ControlRequest request;
  bool wait = false;
};

// Waits until the run has removed the request. Throws ExitCode::peer_lost if the run ends before.
void wait_until_done(const std::filesystem::path& run_directory, const std::filesystem::path& request) {
  const std::filesystem::path clock = run_directory / "control" / ("." + request.filename().string());
  bool training = true;
  while (std::filesystem::exists(request) && training && !stop_requested()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    write_file(clock, "");
    training = is_training(run_directory, clock);
  }
  std::error_code ignored;
  std::filesystem::remove(clock, ignored);
  if (training || !std::filesystem::exists(request)) return;
  std::filesystem::remove(request, ignored);
  throw Error(ExitCode::peer_lost, "the run ended before it took the request, which is withdrawn",
              "see its log; nibble resume goes on");
}

void run_control(const ControlOptions& options) {
  const ControlRequest& request = options.request;
  if (!request.checkpoint && !request.stop && !request.learning_rate) {
    throw Error(ExitCode::usage, "nothing is asked of the run", "give --checkpoint, --stop or --learning-rate");
  }
  if (options.wait) install_signal_handlers();
  const std::filesystem::path directory = options.run_directory;
  const std::filesystem::path file = send_control_request(directory, request);
  fmt::print("asked {} for {}: it looks after every step\n", options.run_directory, to_text(request));
  if (!options.wait) return;
  std::fflush(stdout);
  wait_until_done(directory, file);
  fmt::print("{}\n", std::filesystem::exists(file) ? "not waited for: the request stands" : "done");
}

}  // namespace

void add_control_options(CLI::App& command) {
  auto options = std::make_shared<ControlOptions>();
  command.add_option("RUN_DIR", options->run_directory, "Directory of a run that trains, on this machine or another")
      ->required();
  command.add_flag("--checkpoint", options->request.checkpoint, "Write a checkpoint after the current step and go on");
  command.add_flag("--stop", options->request.stop,
                   "Write a checkpoint after the current step and end with exit code 75");
  command
      .add_option("--learning-rate", options->request.learning_rate,
                  "Peak of the learning rate from the next step on; warm-up and decay keep their shape")
      ->check(CLI::Range(1e-12, 10.0));
  command.add_flag("--wait", options->wait, "Return when it is done, not when it is asked");
  command.footer(
      "Examples:\n"
      "  nibble control runs/nvfp4 --checkpoint --wait\n"
      "  nibble control runs/nvfp4 --learning-rate 1e-3\n"
      "The run's journal.jsonl keeps what was asked. A resumed run has the same learning rates at the same steps.");
  command.final_callback([options] { run_control(*options); });
}

}  // namespace nibble
