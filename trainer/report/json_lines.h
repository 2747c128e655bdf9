// A log of JSON objects, one a line, that is only appended to. A line is written with one system call, so that after a
// kill only the last one can be incomplete.
#pragma once

#include <filesystem>

#include <nlohmann/json_fwd.hpp>

namespace nibble {

class JsonLines {
 public:
  // Opens the file for appending. An incomplete last line, left by a killed run, is removed. Throws
  // ExitCode::cannot_create.
  explicit JsonLines(const std::filesystem::path& path);
  ~JsonLines();
  JsonLines(const JsonLines&) = delete;
  JsonLines& operator=(const JsonLines&) = delete;

  // Adds `time`, the seconds since 1970, and writes the line. Throws ExitCode::io.
  void write(const nlohmann::json& object);
  // Returns when all lines are on the disk.
  void sync();

 private:
  int descriptor_ = -1;
  std::filesystem::path path_;
};

}  // namespace nibble
