// Writes TensorBoard event files: records of (length, masked CRC32C, protocol-buffer Event, masked CRC32C). The
// protocol buffers are encoded here, for the kinds of message that a training run needs: scalars, texts,
// hyperparameters, and the start of a session.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace nibble {

using HyperparameterValue = std::variant<double, bool, std::string>;
struct Hyperparameter {
  std::string name;
  HyperparameterValue value;
};

// Computes CRC-32C (Castagnoli); crc32c("123456789") == 0xE3069283.
uint32_t crc32c(std::string_view bytes);

class TensorboardWriter {
 public:
  // Creates the file <directory>/events.out.tfevents.<time>.<host>.<pid>.0.
  explicit TensorboardWriter(const std::filesystem::path& directory);
  void scalar(std::string_view tag, double value, uint64_t step);
  // Writes a text for the tab TEXT, which reads it as Markdown.
  void text(std::string_view tag, std::string_view markdown, uint64_t step);
  // Writes the hyperparameters of the session for the tab HPARAMS.
  void hyperparameters(const std::vector<Hyperparameter>& parameters);
  // Tells TensorBoard to ignore points of earlier files with a step at or after this one. Call it when a run is
  // resumed.
  void session_start(uint64_t step);
  void flush();

 private:
  void write_record(const std::string& event);
  void write_summary(const std::string& value, uint64_t step);
  std::ofstream file_;
};

}  // namespace nibble
