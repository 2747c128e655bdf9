// Writes TensorBoard event files: records of (length, masked CRC32C, protocol-buffer Event, masked CRC32C). The
// protocol buffers are encoded here, for the three kinds of message that a training run needs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace nibble {

// Computes CRC-32C (Castagnoli); crc32c("123456789") == 0xE3069283.
uint32_t crc32c(std::string_view bytes);

class TensorboardWriter {
 public:
  // Creates the file <directory>/events.out.tfevents.<time>.<host>.<pid>.0.
  explicit TensorboardWriter(const std::filesystem::path& directory);
  void scalar(std::string_view tag, double value, uint64_t step);
  // Tells TensorBoard to ignore points of earlier files with a step at or after this one. Call it when a run is
  // resumed.
  void session_start(uint64_t step);
  void flush();

 private:
  void write_record(const std::string& event);
  std::ofstream file_;
};

}  // namespace nibble
