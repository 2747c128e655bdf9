// A stream of bytes that a child process makes, for libraries that may crash on damaged input or never return. The
// child is a fork of this process; its errors, crashes and timeouts become an Error in this process.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <span>
#include <string>

namespace nibble {

class ChildStream {
 public:
  using Write = std::function<void(std::span<const std::byte>)>;
  // A function that runs in the child, which ends when it returns or throws. It must take no lock that another thread
  // may have held at the fork.
  using Produce = std::function<void(const Write& write)>;

  // Starts the child. `place` names what is being read in messages. Throws ExitCode::io if no child can be started.
  ChildStream(std::string place, const Produce& produce);
  ~ChildStream();  // ends the child
  ChildStream(const ChildStream&) = delete;
  ChildStream& operator=(const ChildStream&) = delete;

  // Fills all of `data` with the next bytes that the child writes. If the child ends before, throws the Error that the
  // child threw, ExitCode::bad_data if it crashed or computed for a minute without writing, or
  // ExitCode::out_of_memory if it was killed.
  void read(std::span<std::byte> data);

 private:
  struct Report;
  [[noreturn]] void run_child(int descriptor, const Produce& produce);
  [[noreturn]] void fail_ended();

  std::string place_;
  Report* report_ = nullptr;  // in memory that both processes share
  int descriptor_ = -1;
  pid_t child_ = -1;
};

}  // namespace nibble
