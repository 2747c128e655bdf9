// A .safetensors file that is read: its header, checked against the file, and the bytes of its tensors. A file holds
// the header's length (8 bytes), the header (JSON: name -> dtype, shape and range of bytes), and the data, which the
// ranges cover without gap or overlap. Source: https://github.com/huggingface/safetensors, "Format".
// safetensors_writer.h writes such files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dist/base/file.h"
#include "trainer/arrays/stored_array.h"

namespace nibble {

constexpr uint64_t max_safetensors_header = 100'000'000;  // bytes: the limit of the format's own library
constexpr std::string_view safetensors_metadata_key = "__metadata__";

// Returns the size of an element of one of the format's types ("BF16"), or nothing for another name.
std::optional<uint64_t> safetensors_element_bytes(std::string_view dtype);

struct SafetensorsEntry {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  uint64_t begin = 0;  // bytes in the data
  uint64_t end = 0;
};

class SafetensorsFile {
 public:
  // Throws ExitCode::bad_data, naming file and tensor, if the header is damaged or does not fit the file.
  explicit SafetensorsFile(const std::filesystem::path& path);

  // All tensors in the order of their data.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  std::string name() const { return file_.name(); }
  // Returns the text that stands for a tensor of the file in messages.
  std::string location(const SafetensorsEntry& entry) const;
  // Returns the type of the elements. Throws ExitCode::bad_data unless they are F16, BF16, F32 or F64.
  StoredDType element_type(const SafetensorsEntry& entry) const;
  // Fills `target` with the bytes of the tensor from `first_byte` on.
  void read(const SafetensorsEntry& entry, uint64_t first_byte, std::span<std::byte> target) const;

 private:
  InputFile file_;
  uint64_t data_ = 0;  // byte of the file at which the data begin
  std::vector<SafetensorsEntry> entries_;
};

}  // namespace nibble
