// How long something takes, by a clock that nobody can set, and what time it is.
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

// Returns the seconds since the beginning of 1970, by the machine's clock.
inline double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace nibble
