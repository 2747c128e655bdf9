#include "dist/ranks/mpi_window.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "dist/base/error.h"
#include "dist/base/signals.h"
#include "dist/device/thread_pool.h"

namespace nibble {
namespace {

constexpr const char* backing_directory = "/dev/shm";  // where MPI libraries on Linux keep windows
constexpr size_t spare_bytes = size_t{16} << 20;       // left for MPI's own messages
constexpr size_t page = 4096;
constexpr size_t populated_at_once = size_t{4} << 20;
constexpr double mebibyte = 1024.0 * 1024.0;

std::string text_of(int result) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(result, text, &length);
  return {text, static_cast<size_t>(length)};
}

// Zeroes memory by reading /dev/zero into it. Where a page is missing, the read fails, while a store would be a signal.
bool zero_pages(int zeros, std::span<std::byte> memory) {
  while (!memory.empty()) {
    const ssize_t count = ::read(zeros, memory.data(), memory.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    memory = memory.subspan(static_cast<size_t>(count));
  }
  return true;
}

}  // namespace

MpiWindow::MpiWindow(MPI_Comm machine, size_t bytes) {
  int ranks = 0;
  MPI_Comm_size(machine, &ranks);
  MPI_Info info = MPI_INFO_NULL;
  MPI_Info_create(&info);
  MPI_Info_set(info, "alloc_shared_noncontig", "true");  // parts on pages of their own
  const size_t asked = round_up(std::max<size_t>(bytes, 1), page) + page;
  void* base = nullptr;
  const int result = MPI_Win_allocate_shared(static_cast<MPI_Aint>(asked), 1, info, machine, &base, &window_);
  MPI_Info_free(&info);
  if (result != MPI_SUCCESS) {
    window_ = MPI_WIN_NULL;
    problem_ = text_of(result);
    return;
  }
  MPI_Win_set_errhandler(window_, MPI_ERRORS_RETURN);
  MPI_Win_lock_all(MPI_MODE_NOCHECK, window_);
  for (int rank = 0; rank < ranks; ++rank) {
    MPI_Aint size = 0;
    int unit = 0;
    void* start = nullptr;
    if (MPI_Win_shared_query(window_, rank, &size, &unit, &start) != MPI_SUCCESS || start == nullptr) {
      problem_ = "MPI does not tell where it is";
      return;
    }
    const size_t skipped =
        round_up(reinterpret_cast<uintptr_t>(start), uintptr_t{page}) - reinterpret_cast<uintptr_t>(start);
    const size_t usable = (static_cast<size_t>(size) - skipped) / page * page;
    parts_.emplace_back(static_cast<std::byte*>(start) + skipped, usable);
  }
}

void MpiWindow::free() {
  if (window_ == MPI_WIN_NULL) return;
  MPI_Win_unlock_all(window_);
  MPI_Win_free(&window_);
  window_ = MPI_WIN_NULL;
}

WindowMemory::WindowMemory(std::shared_ptr<MpiWindow> window, std::span<const int> machines, int own)
    : window_(std::move(window)), parts_(machines.size()) {
  int next = 0;
  for (size_t rank = 0; rank < machines.size() && window_->problem().empty(); ++rank) {
    if (machines[rank] == machines[static_cast<size_t>(own)]) parts_[rank] = window_->part(next++);
  }
}

std::string shared_memory_problem(size_t bytes) {
  struct statvfs info {};
  if (access(backing_directory, W_OK) != 0 || statvfs(backing_directory, &info) != 0) {
    return fmt::format("{} cannot be used: {}", backing_directory, std::strerror(errno));
  }
  const double free_bytes = static_cast<double>(info.f_bavail) * static_cast<double>(info.f_frsize);
  if (static_cast<double>(bytes) + static_cast<double>(spare_bytes) <= free_bytes) return {};
  return fmt::format("{} has {:.0f} MiB free of the {:.0f} that are needed", backing_directory, free_bytes / mebibyte,
                     (static_cast<double>(bytes) + static_cast<double>(spare_bytes)) / mebibyte);
}

std::string populate(std::span<std::byte> memory) {
  const int zeros = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
  if (zeros < 0) return fmt::format("/dev/zero cannot be opened: {}", std::strerror(errno));
  std::atomic<bool> complete{true};
  parallel_for(memory.size(), populated_at_once, [&](size_t begin, size_t end) {
    if (complete && !zero_pages(zeros, memory.subspan(begin, end - begin))) complete = false;
  });
  ::close(zeros);
  return complete ? "" : fmt::format("{} became full", backing_directory);
}

struct Deadline::State {
  std::mutex mutex;
  std::condition_variable wake;
  bool over = false;
  std::thread thread;
};

Deadline::Deadline(double seconds, std::function<void()> expired) : state_(std::make_unique<State>()) {
  if (seconds <= 0) return;
  const BlockSignals block;
  state_->thread = std::thread([seconds, expired = std::move(expired), state = state_.get()] {
    std::unique_lock lock(state->mutex);
    if (state->wake.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return state->over; })) return;
    expired();
  });
}

Deadline::~Deadline() {
  if (!state_->thread.joinable()) return;
  {
    const std::lock_guard lock(state_->mutex);
    state_->over = true;
  }
  state_->wake.notify_one();
  state_->thread.join();
}

}  // namespace nibble
