// Tests of errors, checked arithmetic, and agreement on errors between ranks.
#include "dist/base/error.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <ios>
#include <new>
#include <stdexcept>
#include <system_error>

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

Error translated(const std::function<void()>& fail) {
  try {
    fail();
  } catch (...) {
    return as_error(std::current_exception());
  }
  ADD_FAILURE() << "nothing was thrown";
  return {ExitCode::ok, ""};
}

TEST(Error, ErrorsStayWhatTheyAre) {
  const Error error = translated([] { throw Error(ExitCode::bad_data, "shard 7", "mend it"); });
  EXPECT_EQ(error.code(), ExitCode::bad_data);
  EXPECT_STREQ(error.what(), "shard 7");
  EXPECT_EQ(error.remedy(), "mend it");
}

TEST(Error, LackOfMemoryHasItsExitCodeAndOneAdvice) {
  const Error of_new = translated([] { throw std::bad_alloc(); });
  const Error of_system = translated([] { throw std::system_error(ENOMEM, std::generic_category(), "fork"); });
  for (const Error& error : {of_new, of_system}) {
    EXPECT_EQ(error.code(), ExitCode::out_of_memory);
    EXPECT_EQ(error.remedy(), out_of_memory_remedy);
  }
}

TEST(Error, WhatTheSystemRefusesIsAnErrorOfInputAndOutput) {
  namespace fs = std::filesystem;
  const Error of_files = translated([] { static_cast<void>(fs::file_size("/no/such/file")); });
  EXPECT_EQ(of_files.code(), ExitCode::io);
  EXPECT_NE(std::string(of_files.what()).find("/no/such/file"), std::string::npos);
  EXPECT_EQ(code_of([&] { throw Error(of_files); }), ExitCode::io);
  const auto full_disk = [] {
    throw fs::filesystem_error("copy", std::make_error_code(std::errc::no_space_on_device));
  };
  const auto forbidden = [] { throw fs::filesystem_error("copy", std::make_error_code(std::errc::permission_denied)); };
  const auto bad_stream = [] { throw std::ios_base::failure("stream"); };
  const auto no_thread = [] { throw std::system_error(EAGAIN, std::generic_category(), "thread"); };
  EXPECT_EQ(translated(full_disk).code(), ExitCode::io);
  EXPECT_EQ(translated(forbidden).code(), ExitCode::io);
  EXPECT_EQ(translated(bad_stream).code(), ExitCode::io);
  EXPECT_EQ(translated(no_thread).code(), ExitCode::io);
}

TEST(Error, AllElseIsADefect) {
  const Error error = translated([] { throw std::logic_error("surprise"); });
  EXPECT_EQ(error.code(), ExitCode::internal);
  EXPECT_NE(std::string(error.what()).find("surprise"), std::string::npos);
  EXPECT_EQ(translated([] { throw 7; }).code(), ExitCode::internal);
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
