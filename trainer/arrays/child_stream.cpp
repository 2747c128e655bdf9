#include "trainer/arrays/child_stream.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <new>
#include <string_view>
#include <system_error>
#include <utility>

#include "dist/base/error.h"

namespace nibble {

namespace {

constexpr rlim_t patience = 60;  // seconds of computing between two writes

// Lets the system end this process after `patience` more seconds of processor time.
void renew_time_limit() {
  rusage used{};
  rlimit limit{};
  if (getrusage(RUSAGE_SELF, &used) != 0 || getrlimit(RLIMIT_CPU, &limit) != 0) return;
  const auto seconds = static_cast<rlim_t>(used.ru_utime.tv_sec + used.ru_stime.tv_sec);
  limit.rlim_cur = std::min(limit.rlim_max, seconds + patience);
  setrlimit(RLIMIT_CPU, &limit);
}

void write_to(int descriptor, std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t count = ::write(descriptor, data.data(), data.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) _exit(1);  // the parent no longer reads
    data = data.subspan(static_cast<size_t>(count));
  }
  renew_time_limit();
}

// Restores default signal handling and turns off core files and messages of the C library: the parent reports a crash.
void become_quiet_child() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGPIPE, SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL}) {
    std::signal(number, SIG_DFL);
  }
  const rlimit none{};
  setrlimit(RLIMIT_CORE, &none);
  const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (nowhere >= 0) ::dup2(nowhere, STDERR_FILENO);
  renew_time_limit();
}

template <size_t Size>
void store(std::array<char, Size>& target, std::string_view text) {
  const size_t count = std::min(text.size(), Size);
  std::copy_n(text.begin(), count, target.begin());
  if (count < Size) target[count] = '\0';
}

template <size_t Size>
std::string load(const std::array<char, Size>& source) {
  return {source.begin(), std::find(source.begin(), source.end(), '\0')};
}

[[noreturn]] void fail_system(const std::string& place, const char* action) {
  throw Error(ExitCode::io, fmt::format("{}: cannot {}: {}", place, action, std::generic_category().message(errno)),
              "check the limits on processes, open files and memory (ulimit -a)");
}

}  // namespace

// The error that the child threw, if it threw one.
struct ChildStream::Report {
  int code = 0;
  std::array<char, 4096> what{};
  std::array<char, 1024> remedy{};
};

void ChildStream::run_child(int descriptor, const Produce& produce) {
  const auto report = [this](ExitCode code, std::string_view what, std::string_view remedy) {
    store(report_->what, what);
    store(report_->remedy, remedy);
    report_->code = static_cast<int>(code);
  };
  try {
    become_quiet_child();
    produce([descriptor](std::span<const std::byte> data) { write_to(descriptor, data); });
  } catch (const Error& error) {
    report(error.code(), error.what(), error.remedy());
  } catch (const std::bad_alloc&) {
    report(ExitCode::out_of_memory, place_ + ": not enough memory to read it", "use a machine with more memory");
  } catch (const std::exception& error) {
    report(ExitCode::internal, fmt::format("{}: {}", place_, error.what()), "please report this");
  }
  _exit(0);
}

ChildStream::ChildStream(std::string place, const Produce& produce) : place_(std::move(place)) {
  void* const shared = mmap(nullptr, sizeof(Report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) fail_system(place_, "share memory");
  report_ = new (shared) Report;
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    const int error = errno;
    munmap(report_, sizeof(Report));
    errno = error;
    fail_system(place_, "make a pipe");
  }
  child_ = fork();
  if (child_ == 0) {
    ::close(ends[0]);
    run_child(ends[1], produce);
  }
  const int error = errno;
  ::close(ends[1]);
  if (child_ < 0) {
    ::close(ends[0]);
    munmap(report_, sizeof(Report));
    errno = error;
    fail_system(place_, "start a process to read it");
  }
  descriptor_ = ends[0];
}

ChildStream::~ChildStream() {
  ::close(descriptor_);
  if (child_ > 0) {
    kill(child_, SIGKILL);
    while (waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  munmap(report_, sizeof(Report));
}

void ChildStream::read(std::span<std::byte> data) {
  while (!data.empty()) {
    const ssize_t count = ::read(descriptor_, data.data(), data.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_system(place_, "read from a pipe");
    if (count == 0) fail_ended();
    data = data.subspan(static_cast<size_t>(count));
  }
}

void ChildStream::fail_ended() {
  int status = 0;
  const pid_t child = std::exchange(child_, -1);
  while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
    throw Error(ExitCode::out_of_memory, fmt::format("{}: the process that read it was killed", place_),
                "it probably took too much memory: use a machine with more of it");
  }
  if (WIFSIGNALED(status)) {
    const char* const name = sigabbrev_np(WTERMSIG(status));
    throw Error(
        ExitCode::bad_data,
        fmt::format("{}: damaged: the library that reads it {} (SIG{})", place_,
                    WTERMSIG(status) == SIGXCPU ? "does not come to an end" : "crashed", name == nullptr ? "?" : name),
        "write the file again, or restore it from a copy");
  }
  if (report_->code != 0) throw Error(ExitCode{report_->code}, load(report_->what), load(report_->remedy));
  throw Error(ExitCode::bad_data, fmt::format("{}: damaged: the library that reads it gave up", place_),
              "write the file again, or restore it from a copy");
}

}  // namespace nibble
