// Watches collectives that a device carries out by itself: a thread ends the job when one of them takes too long or
// fails.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "dist/ranks/communicator.h"

namespace nibble {

// The device writes here the number of the last operation that it has begun, and of the last that it has ended.
struct CollectiveMarks {
  uint64_t begun = 0;
  uint64_t ended = 0;
};

class CollectiveWatch {
 public:
  struct Options {
    Communicator& host;
    const char* library = "";  // "NCCL"
    double timeout_s = 0;      // 0: no bound
    // Memory that outlives the watch.
    CollectiveMarks* marks = nullptr;
    // The watching thread calls it. It returns what the library reports as failed; empty if nothing has.
    std::function<std::string()> problem;
    // Called before the job ends; it may block.
    std::function<void()> abort;
  };

  explicit CollectiveWatch(Options options);
  ~CollectiveWatch();
  CollectiveWatch(const CollectiveWatch&) = delete;
  CollectiveWatch& operator=(const CollectiveWatch&) = delete;

  // Records that operation `number`, counted from 1, has been given to the device. `name` is a string literal.
  void add(uint64_t number, const char* name, uint64_t bytes);

  // Ends the job. The message names the last operation that was added and gives `reason`.
  [[noreturn]] void give_up(const std::string& reason);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
