// Watches over collectives that a device carries out by itself: a thread that ends the job when one of them takes too
// long or goes wrong.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "dist/ranks/communicator.h"

namespace nibble {

// Where the device writes the number of the last operation that it has begun, and of the last that it has ended.
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
    // Called by the watching thread. What the library says went wrong; empty if nothing did.
    std::function<std::string()> problem;
    // Called before the job ends; may block.
    std::function<void()> abort;
  };

  explicit CollectiveWatch(Options options);
  ~CollectiveWatch();
  CollectiveWatch(const CollectiveWatch&) = delete;
  CollectiveWatch& operator=(const CollectiveWatch&) = delete;

  // Operation `number`, counted from 1, has been given to the device. name: a literal.
  void add(uint64_t number, const char* name, uint64_t bytes);

  // Ends the job: `reason` of the last operation that was added.
  [[noreturn]] void give_up(const std::string& reason);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
