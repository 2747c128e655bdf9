// Bytes made by another process: for libraries that may crash, or never come back, on damaged input. The child is a
// fork of this process; what happens to it becomes an Error here.
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
  // Runs in the child, which ends when it returns or throws. It must take no lock that another thread may have held.
  using Produce = std::function<void(const Write& write)>;

  // place: what is being read, for messages. ExitCode::io if there can be no child.
  ChildStream(std::string place, const Produce& produce);
  ~ChildStream();  // ends the child
  ChildStream(const ChildStream&) = delete;
  ChildStream& operator=(const ChildStream&) = delete;

  // Fills all of `data` with the next bytes written. If the child ends before: the Error that it threw;
  // ExitCode::bad_data if it crashed or computed for a minute without writing; out_of_memory if it was killed.
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
