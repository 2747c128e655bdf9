// Tests of arenas: planning, committing, reuse of memory, and refusals.
#include "dist/device/arena.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <vector>

#include "dist/base/error.h"
#include "dist/device/dispatch.h"

namespace nibble {
namespace {

ExitCode code_of(const std::function<void()>& function) {
  try {
    function();
  } catch (const Error& error) {
    return error.code();
  }
  return ExitCode::ok;
}

TEST(Arena, HandsOutWhatWasPlanned) {
  const std::vector<size_t> sizes = {1, 64, 65, 0, 1000, 3};
  Arena arena("test");
  for (const size_t size : sizes) EXPECT_EQ(arena.allocate(size), nullptr);
  EXPECT_TRUE(arena.measuring());
  EXPECT_EQ(arena.planned_bytes(), 64u + 64 + 128 + 0 + 1024 + 64);
  arena.commit();
  EXPECT_FALSE(arena.measuring());
  std::byte* previous_end = nullptr;
  for (const size_t size : sizes) {
    auto* memory = static_cast<std::byte*>(arena.allocate(size));
    ASSERT_NE(memory, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % Arena::alignment, 0u);
    EXPECT_GE(memory, previous_end);
    for (size_t i = 0; i < size; ++i) ASSERT_EQ(memory[i], std::byte{0});
    if (size > 0) std::memset(memory, 0xFF, size);
    previous_end = memory + size;
  }
  EXPECT_EQ(code_of([&] { arena.allocate(1); }), ExitCode::internal);
}

TEST(Arena, PlannedBuildsTwiceAndReturnsWhatLiesInMemory) {
  Arena first("first");
  Arena second("second");
  Arena* const arenas[] = {&first, &second};
  std::vector<bool> measured;
  const std::vector<void*> memory = planned(arenas, [&] {
    measured.push_back(first.measuring());
    return std::vector<void*>{first.allocate(100), second.allocate(7)};
  });
  EXPECT_EQ(measured, (std::vector<bool>{true, false}));
  EXPECT_EQ(first.planned_bytes(), 128u);
  EXPECT_EQ(second.planned_bytes(), 64u);
  for (void* pointer : memory) EXPECT_NE(pointer, nullptr);
  Arena alone("alone");
  EXPECT_NE(planned(alone, [&] { return alone.allocate(1); }), nullptr);
}

TEST(Arena, ReleasedStorageIsUsedAgainAndThePlanKeepsTheLargestExtent) {
  Arena arena("test");
  const auto build = [&] {
    std::vector<void*> memory = {arena.allocate(64)};
    const size_t mark = arena.mark();
    memory.push_back(arena.allocate(640));
    arena.release(mark);
    memory.push_back(arena.allocate(128));
    return memory;
  };
  build();
  EXPECT_EQ(arena.planned_bytes(), 64u + 640);
  arena.commit();
  const std::vector<void*> memory = build();
  EXPECT_EQ(memory[1], memory[2]);
  EXPECT_NE(memory[0], memory[1]);
}

TEST(Arena, AnEmptyPlanIsAPlan) {
  Arena arena("empty");
  arena.commit();
  EXPECT_FALSE(arena.measuring());
  EXPECT_EQ(code_of([&] { arena.allocate(1); }), ExitCode::internal);
}

TEST(Arena, MisuseIsADefect) {
  Arena arena("test");
  EXPECT_EQ(code_of([&] { arena.allocate(SIZE_MAX); }), ExitCode::internal);
  EXPECT_EQ(code_of([&] { arena.release(1); }), ExitCode::internal);
  arena.commit();
  EXPECT_EQ(code_of([&] { arena.commit(); }), ExitCode::internal);
}

TEST(Arena, TooMuchMemoryIsAnErrorThatNamesThePlan) {
  Arena arena("the moon");
  arena.allocate(size_t{1} << 46);
  try {
    arena.commit();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::out_of_memory);
    EXPECT_NE(std::string(error.what()).find("the moon"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("67108864.0 MiB"), std::string::npos) << error.what();
    EXPECT_FALSE(error.remedy().empty());
  }
}

TEST(Arena, GpuMemoryNeedsAGpuBuild) {
  if constexpr (built_with_cuda) GTEST_SKIP();
  Arena arena("test", DeviceKind::cuda);
  EXPECT_EQ(code_of([&] { arena.commit(); }), ExitCode::bad_config);
}

}  // namespace
}  // namespace nibble
