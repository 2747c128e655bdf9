// TensorBoard event files: records of (length, masked CRC32C, protocol-buffer Event, masked CRC32C), written by hand
// for the three message kinds that a training run needs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace nibble {

// CRC-32C (Castagnoli); crc32c("123456789") == 0xE3069283.
uint32_t crc32c(std::string_view bytes);

class TensorboardWriter {
 public:
  // Creates directory/events.out.tfevents.<time>.<host>.<pid>.0.
  explicit TensorboardWriter(const std::filesystem::path& directory);
  void scalar(std::string_view tag, double value, uint64_t step);
  // Tells TensorBoard to drop points of earlier files with a step at or after this one: call when resuming.
  void session_start(uint64_t step);
  void flush();

 private:
  void write_record(const std::string& event);
  std::ofstream file_;
};

}  // namespace nibble
