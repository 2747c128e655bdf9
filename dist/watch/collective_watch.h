// Watches collectives that a device carries out by itself: a thread ends the job when one of them, or the call that
// asks for it, takes too long or fails.
//
// The thread tells the control of the ranks, which names the rank that does not go on and ends all of them. Where there
// is none, the job ends because this process does, with ExitCode::peer_lost: the launcher then ends the other ranks.
// The thread calls neither MPI nor the library's abort, because another thread may be inside them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "dist/watch/control.h"

namespace nibble {

// The device writes here the number of the last operation that it has begun, and of the last that it has ended.
struct CollectiveMarks {
  uint64_t begun = 0;
  uint64_t ended = 0;
};

class CollectiveWatch {
 public:
  struct Options {
    const char* library = "";  // "NCCL"
    int rank = 0;
    double timeout_s = 0;  // 0: no bound
    // Memory that outlives the watch.
    CollectiveMarks* marks = nullptr;
    Control* control = nullptr;  // null, or alone: there is none
    // The watching thread calls it. It returns at once what the library reports as failed; empty if nothing has.
    std::function<std::string()> problem;
  };

  explicit CollectiveWatch(Options options);
  ~CollectiveWatch();
  CollectiveWatch(const CollectiveWatch&) = delete;
  CollectiveWatch& operator=(const CollectiveWatch&) = delete;

  // Records that operation `number`, counted from 1, is given to the device. Before that, the operation is number 0,
  // the start. `name` is a string literal.
  void add(uint64_t number, const char* name, uint64_t bytes);

  // Stand around a call of the library for the operation that was added last. The call may wait for other ranks.
  void enter_call();
  void leave_call();

  // Ends the job. The message names the last operation that was added and gives `reason`.
  [[noreturn]] void give_up(const std::string& reason);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
