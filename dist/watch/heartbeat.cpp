#include "dist/watch/heartbeat.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>

#include "dist/base/signals.h"

namespace nibble {
namespace {

constexpr std::chrono::seconds interval{1};

std::string json_string(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      result += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      result += c;
    }
  }
  return result + '"';
}

}  // namespace

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "?";
  return name.data();
}

struct Heartbeat::State {
  const std::filesystem::path path;
  const std::filesystem::path temporary;
  const std::string host = host_name();

  std::mutex mutex;  // guards the members that follow
  std::condition_variable wake;
  uint64_t step = 0;
  std::string phase = "start";
  std::time_t since = std::time(nullptr);
  bool ending = false;
  std::thread thread;

  explicit State(const std::filesystem::path& file) : path(file), temporary(file.string() + ".new") {}

  std::string text() const {
    return fmt::format("{{\"pid\": {}, \"host\": {}, \"step\": {}, \"phase\": {}, \"since\": {}, \"time\": {}}}\n",
                       getpid(), json_string(host), step, json_string(phase), since, std::time(nullptr));
  }

  void publish(const std::string& line) const {
    std::ofstream file(temporary, std::ios::trunc);
    file << line;
    file.close();
    std::error_code ignored;
    if (file) std::filesystem::rename(temporary, path, ignored);
  }

  void run() {
    std::unique_lock lock(mutex);
    while (!ending) {
      const std::string line = text();
      lock.unlock();
      publish(line);
      lock.lock();
      wake.wait_for(lock, interval, [&] { return ending; });
    }
  }
};

Heartbeat::Heartbeat(const std::filesystem::path& path) : state_(std::make_unique<State>(path)) {
  std::error_code ignored;
  std::filesystem::create_directories(path.parent_path(), ignored);
  const BlockSignals block;
  state_->thread = std::thread([state = state_.get()] { state->run(); });
}

Heartbeat::~Heartbeat() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->ending = true;
  }
  state_->wake.notify_one();
  state_->thread.join();
  std::error_code ignored;
  std::filesystem::remove(state_->path, ignored);
  std::filesystem::remove(state_->temporary, ignored);
}

void Heartbeat::set(uint64_t step, std::string_view phase) {
  const std::lock_guard lock(state_->mutex);
  state_->step = step;
  state_->phase = phase;
  state_->since = std::time(nullptr);
}

}  // namespace nibble
