// Reads a run that may be training at this moment: each time only what its log has got since.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "trainer/report/comparison.h"

namespace nibble {

class RunFollower {
 public:
  // The directory need not exist yet.
  explicit RunFollower(const std::filesystem::path& directory);

  // Reads what is new. Returns whether anything has changed. Whatever is missing or damaged becomes the message, and
  // what has been read before stays: a directory that disappears, or a line that cannot be read, ends nothing. A log
  // that is another file than before, or shorter, is read from its beginning.
  bool refresh();

  const ComparedRun& run() const { return run_; }
  // False: run().config means nothing, because config.yaml has not been read yet.
  bool configured() const { return configured_; }
  // Why nothing, or nothing new, is there; "" where all is well.
  const std::string& message() const { return message_; }

 private:
  bool read_configuration();
  bool read_metrics();

  ComparedRun run_;
  bool configured_ = false;
  std::string message_;
  std::string problem_;                                   // found by the refresh at hand
  std::filesystem::file_time_type configuration_time_{};  // of the config.yaml that was read
  uint64_t offset_ = 0;                                   // bytes of the log that have been read: whole lines
  uint64_t inode_ = 0;                                    // of the log
  uint64_t lines_ = 0;
  std::string bad_line_;  // says which line could not be read
};

}  // namespace nibble
