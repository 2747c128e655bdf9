// Helpers that the tests of the data folder share: a fresh directory, whole files, expected errors, and real text.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/text/text_reader.h"
#include "dist/base/error.h"
#include "dist/base/file.h"

namespace nibble {

// A fresh directory for one test; the destructor removes it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    path_ = std::filesystem::temp_directory_path() /
            (std::string("nibble-") + test->test_suite_name() + "-" + test->name() + "-" + std::to_string(::getpid()));
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::string slurp(const std::filesystem::path& path) {
  return read_file(path, UINT64_MAX);
}

// Writes a file without waiting for the disk, unlike write_file(): these tests write thousands of files.
inline void put(const std::filesystem::path& path, std::string_view content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  ASSERT_TRUE(file.flush()) << path;
}

inline std::filesystem::path sample_text() {
  return std::filesystem::path(NIBBLE_SOURCE_DIR) / "data/sample/state_of_the_union.txt.zst";
}

// Calls visit(document) for every document; a bad one is an error.
template <class Visit>
void for_each_document(const std::filesystem::path& path, const TextOptions& options, Visit&& visit) {
  TextReader reader(path, path.string(), options);
  for (RawDocument raw; reader.next(raw); raw = {}) {
    const Document document = parse_document(std::move(raw), options);
    if (!document.fault.empty()) throw Error(ExitCode::bad_data, document.fault, document.remedy);
    if (!document.text.empty()) visit(document);
  }
}

inline std::vector<std::string> read_documents(const std::filesystem::path& path, const TextOptions& options = {}) {
  std::vector<std::string> documents;
  for_each_document(path, options, [&](const Document& document) { documents.push_back(document.text); });
  return documents;
}

// Returns the first `bytes` bytes of the sample, one document for each address.
inline std::vector<std::string> sample_documents(uint64_t bytes) {
  TextOptions options;
  options.documents = DocumentRule::line;
  std::vector<std::string> documents;
  for_each_document(sample_text(), options, [&](const Document& document) {
    if (bytes == 0) return;
    documents.push_back(document.text.substr(0, bytes));
    bytes -= documents.back().size();
  });
  return documents;
}

// Runs `action`, expects an Error with this exit code, and returns its text.
template <class Action>
std::string expect_error(ExitCode code, Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_FALSE(error.remedy().empty()) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

}  // namespace nibble
