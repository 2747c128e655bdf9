#include "trainer/arrays/child_stream.h"

#include <gtest/gtest.h>

#include <csignal>
#include <new>
#include <vector>

#include "data/test_files.h"

namespace nibble {
namespace {

using Write = ChildStream::Write;

std::string read_byte(const ChildStream::Produce& produce, ExitCode code) {
  return expect_error(code, [&] {
    ChildStream stream("place", produce);
    std::vector<std::byte> data(2);
    stream.read(data);
  });
}

TEST(ChildStreamTest, BytesArriveInOrder) {
  ChildStream stream("place", [](const Write& write) {
    std::vector<std::byte> data(300'000);
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * i >> 3);
    write(std::span(data).first(1));
    write(std::span(data).subspan(1));
  });
  std::vector<std::byte> data(300'000);
  stream.read(std::span(data).first(100'001));
  stream.read(std::span(data).subspan(100'001));
  for (size_t i = 0; i < data.size(); ++i) ASSERT_EQ(data[i], static_cast<std::byte>(i * i >> 3));
}

TEST(ChildStreamTest, WhatHappensToTheChildIsAnError) {
  const std::vector<std::byte> one(1);
  for (const int number : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE}) {
    const std::string text = read_byte(
        [&](const Write& write) {
          write(one);
          std::raise(number);
        },
        ExitCode::bad_data);
    EXPECT_NE(text.find("place: damaged"), std::string::npos) << text;
    EXPECT_NE(text.find("crashed"), std::string::npos) << text;
  }
  const auto endless = read_byte([](const Write&) { std::raise(SIGXCPU); }, ExitCode::bad_data);
  EXPECT_NE(endless.find("does not come to an end"), std::string::npos) << endless;
  read_byte([](const Write&) { std::raise(SIGKILL); }, ExitCode::out_of_memory);
  read_byte([](const Write&) { throw std::bad_alloc(); }, ExitCode::out_of_memory);
  read_byte([](const Write&) { throw std::runtime_error("?"); }, ExitCode::internal);
  read_byte([&](const Write& write) { write(one); }, ExitCode::bad_data);
  const std::string longest(10'000, 'x');
  const std::string text =
      read_byte([&](const Write&) { throw Error(ExitCode::missing_input, longest, "fix"); }, ExitCode::missing_input);
  EXPECT_EQ(text, longest.substr(0, 4096));
}

TEST(ChildStreamTest, AChildThatNobodyReadsIsEnded) {
  for (int i = 0; i < 3; ++i) {
    const ChildStream stream("place", [](const Write& write) {
      const std::vector<std::byte> data(1'000'000);
      for (;;) write(data);
    });
  }
}

}  // namespace
}  // namespace nibble
