#include "dist/watch/collective_watch.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "dist/base/error.h"
#include "dist/base/log.h"
#include "dist/base/signals.h"
#include "dist/base/stopwatch.h"

namespace nibble {
namespace {

constexpr std::chrono::milliseconds interval{20};
constexpr std::chrono::seconds time_of_control{5};  // within which it ends the process

struct Operation {
  uint64_t number = 0;
  const char* name = "start";
  uint64_t bytes = 0;
};

}  // namespace

struct CollectiveWatch::State {
  const Options options;

  std::mutex mutex;  // guards the members that follow
  std::condition_variable wake;
  std::deque<Operation> operations;  // those not known to have ended, and the last one
  std::optional<Stopwatch> call;     // runs while a call of the library does
  bool ending = false;
  std::atomic<bool> giving_up{false};
  std::thread thread;

  explicit State(Options given) : options(std::move(given)), operations(1) {}

  uint64_t read(uint64_t& mark) const { return std::atomic_ref(mark).load(std::memory_order_acquire); }

  Operation operation(uint64_t number) {
    const std::lock_guard lock(mutex);
    for (const Operation& candidate : operations) {
      if (candidate.number == number) return candidate;
    }
    return operations.back();
  }

  bool call_is_overdue() {
    const std::lock_guard lock(mutex);
    return call && expired(*call);
  }
  bool expired(const Stopwatch& stopwatch) const {
    return options.timeout_s > 0 && stopwatch.seconds() > options.timeout_s;
  }

  void forget_until(uint64_t ended) {
    const std::lock_guard lock(mutex);
    while (operations.size() > 1 && operations.front().number <= ended) operations.pop_front();
  }

  void run() {
    uint64_t watched = 0;  // the operation that was last seen to have begun; the stopwatch runs since then
    Stopwatch stopwatch;
    std::unique_lock lock(mutex);
    while (!ending) {
      lock.unlock();
      const uint64_t ended = read(options.marks->ended);
      const uint64_t begun = read(options.marks->begun);
      forget_until(ended);
      if (const std::string problem = options.problem(); !problem.empty()) {
        give_up(operation(ended + 1), fmt::format("failed: {}", problem));
      }
      if (call_is_overdue()) end_late(operation(UINT64_MAX));
      if (begun <= ended) {
        watched = 0;
      } else if (watched != begun) {
        watched = begun;
        stopwatch = Stopwatch();
      } else if (expired(stopwatch)) {
        end_late(operation(begun));
      }
      lock.lock();
      wake.wait_for(lock, interval, [&] { return ending; });
    }
  }

  bool has_control() const { return options.control != nullptr && !options.control->is_alone(); }

  // The control decides who is late, and ends this process.
  [[noreturn]] void end_late(const Operation& operation) {
    if (has_control()) {
      options.control->set_overdue(fmt::format("{} of {}", operation.name, options.library), operation.number);
      std::this_thread::sleep_for(time_of_control);
    }
    give_up(operation, fmt::format("took longer than {} s", options.timeout_s));
  }

  [[noreturn]] void give_up(const Operation& operation, const std::string& reason) {
    if (giving_up.exchange(true)) {
      for (;;) pause();  // the other thread is about to end the process
    }
    const Error error(
        ExitCode::peer_lost,
        fmt::format("{} number {} of {} ({} bytes) on rank {} {}: a rank or the connection to it is lost",
                    operation.name, operation.number, options.library, operation.bytes, options.rank, reason),
        "resume from the last checkpoint; if the ranks were only slow, raise comm.timeout_s");
    if (has_control() && options.control->raise(error)) std::this_thread::sleep_for(time_of_control);
    print_error(error);
    _exit(static_cast<int>(ExitCode::peer_lost));
  }
};

CollectiveWatch::CollectiveWatch(Options options) : state_(std::make_unique<State>(std::move(options))) {
  const BlockSignals block;
  state_->thread = std::thread([state = state_.get()] { state->run(); });
}

CollectiveWatch::~CollectiveWatch() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->ending = true;
  }
  state_->wake.notify_one();
  state_->thread.join();
}

void CollectiveWatch::add(uint64_t number, const char* name, uint64_t bytes) {
  const std::lock_guard lock(state_->mutex);
  state_->operations.push_back({number, name, bytes});
}

void CollectiveWatch::enter_call() {
  const std::lock_guard lock(state_->mutex);
  state_->call.emplace();
}

void CollectiveWatch::leave_call() {
  const std::lock_guard lock(state_->mutex);
  state_->call.reset();
}

void CollectiveWatch::give_up(const std::string& reason) {
  state_->give_up(state_->operation(UINT64_MAX), reason);
}

}  // namespace nibble
