// Tests of windows of shared memory whose file system is full.
#include "dist/ranks/mpi_window.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <thread>

#include "dist/device/thread_pool.h"

namespace nibble {
namespace {

// Returns `mapped` bytes of a file that has only `present` bytes: a store beyond them would be SIGBUS, as in a full
// file system.
std::span<std::byte> memory_of_file(size_t mapped, size_t present) {
  const int file = memfd_create("test", 0);
  EXPECT_EQ(ftruncate(file, static_cast<off_t>(present)), 0);
  void* const memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  return {static_cast<std::byte*>(memory), mapped};
}

TEST(Populate, GivesEveryPage) {
  set_compute_threads(2);
  const size_t bytes = (size_t{9} << 20) + 4096;
  const std::span<std::byte> memory = memory_of_file(bytes, bytes);
  EXPECT_EQ(populate(memory), "");
  for (size_t i = 0; i < bytes; i += 4096) ASSERT_EQ(memory[i], std::byte{0});
  munmap(memory.data(), bytes);
  set_compute_threads(1);
}

TEST(Populate, APageThatCannotBeHadIsNoSignal) {
  const size_t bytes = size_t{9} << 20;
  for (const size_t present : {size_t{0}, size_t{4096}, bytes - 4096}) {
    const std::span<std::byte> memory = memory_of_file(bytes, present);
    EXPECT_NE(populate(memory), "") << present;
    munmap(memory.data(), bytes);
  }
}

TEST(SharedMemoryProblem, IsFoundBeforeMpiMeetsIt) {
  EXPECT_NE(shared_memory_problem(SIZE_MAX / 4), "");
}

TEST(Deadline, ComesOnceOrNotAtAll) {
  std::atomic<int> expired{0};
  {
    const Deadline none(0, [&] { ++expired; });
  }
  {
    const Deadline far(3600, [&] { ++expired; });
  }
  EXPECT_EQ(expired, 0);
  {
    const Deadline near(0.001, [&] { ++expired; });
    while (expired == 0) std::this_thread::yield();
  }
  EXPECT_EQ(expired, 1);
}

}  // namespace
}  // namespace nibble
