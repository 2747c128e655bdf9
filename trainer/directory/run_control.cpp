#include "trainer/directory/run_control.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/text.h"

namespace nibble {

namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds silence{30};
constexpr uint64_t largest_request = 4096;  // bytes
constexpr double largest_rate = 10;         // as for optimizer.learning_rate

fs::path control_directory(const fs::path& run_directory) {
  return run_directory / "control";
}

std::vector<fs::path> request_files(const fs::path& run_directory) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(control_directory(run_directory), error)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".json") && !name.starts_with('.')) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ExitCode::bad_data, what,
              R"(write for example {"checkpoint": true}, {"stop": true} or {"learning_rate": 3e-4})");
}

bool truth(const std::string& key, const nlohmann::json& value) {
  if (!value.is_boolean()) refuse(fmt::format("{} is not true or false", key));
  return value.get<bool>();
}

double rate(const nlohmann::json& value) {
  const double number = value.is_number() ? value.get<double>() : -1;
  if (!(number > 0 && number <= largest_rate)) {
    refuse(fmt::format("learning_rate is {}; it must be above 0, up to {}", value.dump(), largest_rate));
  }
  return number;
}

}  // namespace

std::string to_text(const ControlRequest& request) {
  nlohmann::json object = nlohmann::json::object();
  if (request.checkpoint) object["checkpoint"] = true;
  if (request.stop) object["stop"] = true;
  if (request.learning_rate) object["learning_rate"] = *request.learning_rate;
  return object.dump();
}

ControlRequest parse_control_request(const std::string& text) {
  const nlohmann::json object = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) refuse("not a JSON object");
  ControlRequest request;
  for (const auto& [key, value] : object.items()) {
    if (key == "checkpoint") {
      request.checkpoint = truth(key, value);
    } else if (key == "stop") {
      request.stop = truth(key, value);
    } else if (key == "learning_rate") {
      request.learning_rate = rate(value);
    } else {
      refuse(fmt::format("unknown member {}", unknown_word(key, {"checkpoint", "stop", "learning_rate"})));
    }
  }
  return request;
}

bool is_training(const fs::path& run_directory, const fs::path& now) {
  std::error_code no_heartbeat, no_clock;
  const auto beat = fs::last_write_time(run_directory / "heartbeat" / "rank-0", no_heartbeat);
  const auto present = fs::last_write_time(now, no_clock);
  return !no_heartbeat && !no_clock && present - beat < silence;
}

fs::path send_control_request(const fs::path& run_directory, const ControlRequest& request) {
  if (!fs::exists(run_directory / "config.yaml")) {
    throw Error(ExitCode::missing_input,
                fmt::format("{} is not a run directory: it has no config.yaml", run_directory.string()),
                "name the run.dir of a run that nibble train has started");
  }
  parse_control_request(to_text(request));  // the checks
  std::error_code error;
  fs::create_directories(control_directory(run_directory), error);
  const auto time = std::chrono::system_clock::now().time_since_epoch();
  const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
  fs::path file = control_directory(run_directory) / fmt::format("{}-{}.json", nanoseconds, getpid());
  const fs::path hidden = control_directory(run_directory) / ("." + file.filename().string());
  write_file(hidden, to_text(request) + "\n");
  if (!is_training(run_directory, hidden)) {
    fs::remove(hidden, error);
    throw Error(ExitCode::missing_input, fmt::format("no process trains in {}", run_directory.string()),
                "start it with nibble resume; --set 'schedule.peaks={STEP: RATE}' there changes the learning rate");
  }
  fs::rename(hidden, file);
  return file;
}

bool has_control_requests(const fs::path& run_directory) {
  return !request_files(run_directory).empty();
}

TakenRequests take_control_requests(const fs::path& run_directory) {
  TakenRequests taken;
  for (const fs::path& file : request_files(run_directory)) {
    try {
      const ControlRequest request = parse_control_request(read_file(file, largest_request));
      taken.request.checkpoint |= request.checkpoint;
      taken.request.stop |= request.stop;
      if (request.learning_rate) taken.request.learning_rate = request.learning_rate;
      taken.files.push_back(file);
    } catch (const Error& error) {
      std::error_code ignored;
      fs::rename(file, fs::path(file.string() + ".refused"), ignored);
      taken.refused.push_back(fmt::format("{}: {}; {}", file.string(), error.what(), error.remedy()));
    }
  }
  return taken;
}

}  // namespace nibble
