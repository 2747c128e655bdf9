// Writes a .safetensors file (trainer/arrays/safetensors_file.h) piece by piece, so that it may be larger than the
// memory. save_safetensors() in trainer/arrays/array_file.h writes one of arrays that are in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "dist/base/file.h"

namespace nibble {

struct SafetensorsTensor {
  std::string name;   // UTF-8, unique, not empty, not "__metadata__"
  std::string dtype;  // as in NamedArray
  std::vector<int64_t> shape;
  uint64_t bytes() const;
};

class SafetensorsWriter {
 public:
  // Writes the header. The data lie in the order of `tensors`. Bytes of the metadata that are not UTF-8 become U+FFFD.
  SafetensorsWriter(const std::filesystem::path& path, const std::vector<SafetensorsTensor>& tensors,
                    const std::map<std::string, std::string>& metadata);

  // Writes the next bytes of the data. Throws ExitCode::io.
  void write(std::span<const std::byte> bytes);
  // Makes the file appear under its name. All tensors must have been written.
  void publish();

 private:
  OutputFile file_;
  uint64_t next_ = 0;  // byte of the file
  uint64_t end_ = 0;
};

}  // namespace nibble
