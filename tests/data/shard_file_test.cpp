// More files are read than the process may open at a time, and a file that changes in between is noticed.
#include "data/shards/shard_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <memory>

#include "tests/data/test_files.h"

namespace nibble {
namespace {

// Lowers the limit on open files for one test.
class FewOpenFiles {
 public:
  explicit FewOpenFiles(rlim_t limit) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit lowered{.rlim_cur = limit, .rlim_max = before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &lowered);
  }
  ~FewOpenFiles() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  FewOpenFiles(const FewOpenFiles&) = delete;
  FewOpenFiles& operator=(const FewOpenFiles&) = delete;

 private:
  rlimit before_{};
};

std::string text_of(const ShardFile& file) {
  std::string text(file.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

TEST(ShardFile, MoreFilesThanMayBeOpen) {
  const TemporaryDirectory directory;
  const FewOpenFiles few(64);
  std::vector<std::unique_ptr<ShardFile>> files;
  for (int i = 0; i < 200; ++i) {
    put(directory / std::to_string(i), "content of " + std::to_string(i));
    files.push_back(std::make_unique<ShardFile>(directory / std::to_string(i)));
  }
  for (const int step : {1, 7, 199}) {
    for (int i = 0; i < 200; ++i) {
      const int index = i * step % 200;
      EXPECT_EQ(text_of(*files[static_cast<size_t>(index)]), "content of " + std::to_string(index));
    }
  }
}

TEST(ShardFile, AFileThatChangesWhileItIsClosedIsNamed) {
  const TemporaryDirectory directory;
  const FewOpenFiles few(64);
  std::vector<std::unique_ptr<ShardFile>> files;
  for (int i = 0; i < 40; ++i) {
    put(directory / std::to_string(i), "abc");
    files.push_back(std::make_unique<ShardFile>(directory / std::to_string(i)));
  }
  std::filesystem::remove(directory / "39");
  EXPECT_EQ(text_of(*files[39]), "abc");  // it is open
  std::filesystem::rename(directory / "1", directory / "0");
  std::filesystem::last_write_time(directory / "0",
                                   std::filesystem::file_time_type::clock::now() + std::chrono::hours(1));
  put(directory / "2", "abcd");
  const auto read = [&](size_t index) { return [&files, index] { text_of(*files[index]); }; };
  EXPECT_NE(expect_error(ExitCode::bad_data, read(0)).find("changed or replaced"), std::string::npos);
  EXPECT_NE(expect_error(ExitCode::missing_input, read(1)).find("no such file"), std::string::npos);
  EXPECT_NE(expect_error(ExitCode::bad_data, read(2)).find("changed or replaced"), std::string::npos);
  EXPECT_EQ(text_of(*files[3]), "abc");
}

// Where not even one more file may be opened, the error says what the limit is.
TEST(ShardFile, TheLimitOnOpenFilesIsNamed) {
  const TemporaryDirectory directory;
  put(directory / "a", "abc");
  const FewOpenFiles few(3);
  try {
    const ShardFile file(directory / "a");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_NE(std::string(error.what()).find("Too many open files"), std::string::npos) << error.what();
    EXPECT_NE(error.remedy().find("may open 3 files and its hard limit is"), std::string::npos) << error.remedy();
  }
}

}  // namespace
}  // namespace nibble
