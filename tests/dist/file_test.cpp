#include "dist/base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>
#include <thread>

#include "dist/base/error.h"
#include "dist/base/file_system.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

class Files : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "nibble-files-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  void TearDown() override { fs::remove_all(directory_); }

  static void refused(ExitCode code, const std::string& what, const std::function<void()>& function) {
    try {
      function();
      ADD_FAILURE() << "accepted, though: " << what;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
      EXPECT_FALSE(error.remedy().empty());
    }
  }

  fs::path directory_;
};

TEST_F(Files, WrittenFilesReplaceOthersAndLeaveNothingBeside) {
  const fs::path path = directory_ / "a.txt";
  write_file(path, "old and long");
  write_file(path, "new");
  EXPECT_EQ(read_file(path, 100), "new");
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_), fs::directory_iterator()), 1);
}

TEST_F(Files, AnUnpublishedFileVanishesAndTheOldOneStays) {
  const fs::path path = directory_ / "a.txt";
  write_file(path, "old");
  {
    OutputFile file(path);
    file.write_at(0, std::as_bytes(std::span("new")));
  }
  EXPECT_EQ(read_file(path, 100), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_), fs::directory_iterator()), 1);
}

TEST_F(Files, InputsThatCannotBeReadAreNamed) {
  refused(ExitCode::missing_input, "none: cannot open: no such file", [&] { InputFile file(directory_ / "none"); });
  refused(ExitCode::missing_input, "is a directory", [&] { InputFile file(directory_); });
  refused(ExitCode::missing_input, "none: cannot open", [&] { read_stream(directory_ / "none", 10); });
  refused(ExitCode::missing_input, "is a directory", [&] { read_stream(directory_, 10); });
  ASSERT_EQ(mkfifo((directory_ / "pipe").c_str(), 0600), 0);
  refused(ExitCode::missing_input, "pipe: not a regular file", [&] { InputFile file(directory_ / "pipe"); });
}

TEST_F(Files, OutputsThatCannotBeMadeAreNamed) {
  const fs::path path = directory_ / "none/a.txt";
  refused(ExitCode::cannot_create, "cannot create " + path.string(), [&] { write_file(path, ""); });
  fs::create_directory(directory_ / "taken");
  refused(ExitCode::cannot_create, "cannot replace", [&] { write_file(directory_ / "taken", ""); });
  write_new_file(directory_ / "new", "1");
  refused(ExitCode::cannot_create, "cannot create", [&] { write_new_file(directory_ / "new", "2"); });
  EXPECT_EQ(read_file(directory_ / "new", 10), "1");
  refused(ExitCode::io, "cannot write /x: No space left on device", [] { fail_output("write", "/x", ENOSPC); });
}

TEST_F(Files, StreamsAreReadFromPipesUpToTheLimit) {
  const fs::path pipe = directory_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  std::thread writer([&] {
    const FileDescriptor file(pipe, O_WRONLY);
    for (const char* part : {"ab", "cd"}) EXPECT_EQ(::write(file.get(), part, 2), 2);
  });
  EXPECT_EQ(read_stream(pipe, 100), "abcd");
  writer.join();
  write_file(directory_ / "long", std::string(100, 'x'));
  EXPECT_EQ(read_stream(directory_ / "long", 7), "xxxxxxx");
}

}  // namespace
}  // namespace nibble
