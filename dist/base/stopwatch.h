// Measures how long something takes, with a clock that nobody can set.
#pragma once

#include <chrono>

namespace nibble {

// A stopwatch runs from its construction on.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

}  // namespace nibble
