// Requests to a run that trains: files in its directory control/, one a request, each published by rename. Rank 0 looks
// for them after every step (docs/operations.md, "Steering a run"). A request is removed once it is done.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace nibble {

// JSON: {"checkpoint": true, "stop": true, "learning_rate": 3e-4}, each member optional.
struct ControlRequest {
  bool checkpoint = false;              // write a checkpoint after the step
  bool stop = false;                    // write a checkpoint and end with ExitCode::start_again
  std::optional<double> learning_rate;  // the peak of the learning rate from the next step on
};

std::string to_text(const ControlRequest& request);
// Throws ExitCode::bad_data for a text that is no request, naming the member that is wrong.
ControlRequest parse_control_request(const std::string& text);

// Writes the request into the run's directory and returns its file. Throws ExitCode::missing_input if no process trains
// there: rank 0 of a run renews its heartbeat every second, and none that is `silence` old counts.
std::filesystem::path send_control_request(const std::filesystem::path& run_directory, const ControlRequest& request);
// Returns whether a process trains in the directory. `now` is a file that was written just now on the same file system,
// whose clock may be another than that of this machine.
bool is_training(const std::filesystem::path& run_directory, const std::filesystem::path& now);

// What lies in control/ is taken in the order of the names.
struct TakenRequests {
  ControlRequest request;                    // all of them together; of several learning rates the last
  std::vector<std::filesystem::path> files;  // to be removed when they are done
  std::vector<std::string> refused;          // one text for each file that is no request; it is renamed to NAME.refused
};
bool has_control_requests(const std::filesystem::path& run_directory);
TakenRequests take_control_requests(const std::filesystem::path& run_directory);

}  // namespace nibble
