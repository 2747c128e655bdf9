// A sign of life from each rank: a small JSON file that a thread rewrites about once a second,
//   {"pid": 4711, "host": "node7", "step": 12, "phase": "train", "since": 1700000000, "time": 1700000042}
// "since" is when this step and phase began and "time" is when the file was written (Unix seconds). An old "time" means
// that the rank is stopped or dead; an old "since" with a fresh "time" means that the rank hangs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace nibble {

// Returns the name of this machine; "?" if the system does not tell.
std::string host_name();

class Heartbeat {
 public:
  // Creates the file's directory if need be. A file that cannot be written is no error: the run goes on without it.
  explicit Heartbeat(const std::filesystem::path& path);
  // Removes the file, so that only ranks that did not end cleanly leave one behind.
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  // Sets what this rank is doing. The call is cheap and may come from any thread.
  void set(uint64_t step, std::string_view phase);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
