#include "dist/base/error.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "dist/base/log.h"
#include "dist/device/device.h"
#include "dist/device/dispatch.h"

namespace nibble {
namespace {

template <class Function>
ExitCode code_of(Function&& function) {
  try {
    function();
  } catch (const Error& error) {
    EXPECT_FALSE(std::string(error.what()).empty());
    EXPECT_FALSE(error.remedy().empty());
    return error.code();
  }
  return ExitCode::ok;
}

TEST(Error, DefectsNameTheirPlace) {
  try {
    NIBBLE_CHECK(1 + 1 == 3, "sum");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::internal);
    EXPECT_NE(std::string(error.what()).find("error_test.cpp"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("1 + 1 == 3"), std::string::npos);
  }
}

TEST(Error, NarrowRefusesToChangeTheValue) {
  EXPECT_EQ(narrow<int8_t>(-128), -128);
  EXPECT_EQ(narrow<uint64_t>(int64_t{7}), 7u);
  EXPECT_EQ(code_of([] { narrow<int8_t>(128); }), ExitCode::internal);
  EXPECT_EQ(code_of([] { narrow<uint64_t>(int64_t{-1}); }), ExitCode::internal);
  EXPECT_EQ(code_of([] { narrow<int64_t>(uint64_t{1} << 63); }), ExitCode::internal);
}

TEST(Error, SizesDoNotWrapAround) {
  EXPECT_EQ(checked_multiply(uint64_t{1} << 32, (uint64_t{1} << 32) - 1), 0xFFFFFFFF00000000u);
  EXPECT_EQ(code_of([] { checked_multiply(uint64_t{1} << 32, uint64_t{1} << 32); }), ExitCode::internal);
  EXPECT_EQ(div_exact(12, 4), 3);
  EXPECT_EQ(code_of([] { div_exact(13, 4); }), ExitCode::internal);
  EXPECT_EQ(code_of([] { div_exact(13, 0); }), ExitCode::internal);
  EXPECT_EQ(round_up(13, 4), 16);
}

TEST(Device, RequestsAreResolvedOrRefused) {
  EXPECT_EQ(resolve_device("cpu"), DeviceKind::cpu);
  EXPECT_EQ(code_of([] { resolve_device("gpu"); }), ExitCode::bad_config);
  EXPECT_EQ(code_of([] { fail_no_cuda(); }), ExitCode::bad_config);
  if constexpr (built_with_cuda) GTEST_SKIP() << "the rest is about builds without CUDA";
  EXPECT_EQ(code_of([] { resolve_device("cuda"); }), ExitCode::bad_config);
}

TEST(Device, AutoSaysOnceThatItRunsOnTheCpu) {
  if constexpr (built_with_cuda) GTEST_SKIP() << "depends on the machine";
  testing::internal::CaptureStderr();
  EXPECT_EQ(resolve_device("auto"), DeviceKind::cpu);
  const std::string first = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(first.begin(), first.end(), '\n'), 1) << first;
  EXPECT_NE(first.find("CPU"), std::string::npos);
  testing::internal::CaptureStderr();
  EXPECT_EQ(resolve_device("auto"), DeviceKind::cpu);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(Log, OnlyRankZeroInformsAndEveryRankWarns) {
  testing::internal::CaptureStderr();
  set_log_rank(2, 4);
  log_info("hello {}", 1);
  log_warning("careful {}", 2);
  set_log_rank(0, 1);
  log_info("hello {}", 3);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "nibble: warning (rank 2): careful 2\nnibble: hello 3\n");
}

}  // namespace
}  // namespace nibble
