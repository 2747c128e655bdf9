#include "dist/device/pinned_memory.h"

#include <gtest/gtest.h>

#include "cuda/device_fixture.h"

namespace nibble {
namespace {

class PinnedMemoryTest : public DeviceTest {};

TEST_F(PinnedMemoryTest, MayBeWrittenAgainWhenTheDeviceHasPassedTheMark) {
  constexpr int64_t count = 1000;
  Arena arena("test", DeviceKind::cuda);
  const Tensor target = planned(arena, [&] { return allocate_tensor(arena, DType::i32, {count}); });
  PinnedMemory memory(DeviceKind::cuda, target.bytes());
  memory.wait();  // without a mark there is nothing to wait for
  const Tensor source(memory.data(), DType::i32, {count});
  for (int32_t value = 1; value < 4; ++value) {
    memory.wait();
    std::fill_n(source.as<int32_t>(), count, value);
    start_copy_bytes({.to = target.data(),
                      .to_device = DeviceKind::cuda,
                      .from = source.data(),
                      .from_device = DeviceKind::cpu,
                      .bytes = source.bytes()});
    memory.mark();
    memory.wait();
    std::fill_n(source.as<int32_t>(), count, -1);
    const HostCopy values(target);
    for (const int32_t copied : values.as<int32_t>()) ASSERT_EQ(copied, value);
  }
}

}  // namespace
}  // namespace nibble
