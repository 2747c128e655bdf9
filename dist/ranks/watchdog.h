// A sign of life from each rank: a small JSON file that a thread rewrites about once a second,
//   {"pid": 4711, "host": "node7", "step": 12, "phase": "train", "since": 1700000000, "time": 1700000042}
// since: when this step and phase began, time: when the file was written (Unix seconds). A file with an old time is a
// rank that is stopped or dead; an old since with a fresh time is a rank that hangs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>

namespace nibble {

class Heartbeat {
 public:
  // Creates the file's directory if need be. Nothing here throws for want of a file: a run goes on without.
  explicit Heartbeat(const std::filesystem::path& path);
  // Removes the file: only ranks that did not end cleanly leave one behind.
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  // What this rank does now; cheap, from any thread.
  void set(uint64_t step, std::string_view phase);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
