// The bytes of a text file from beginning to end, decompressed if its name ends in .zst, in bounded memory.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

namespace nibble {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Returns the number of bytes put into `data`, 0 only at the end. Throws ExitCode::bad_data for a damaged or
  // truncated frame.
  virtual size_t read(std::span<std::byte> data) = 0;
};

std::unique_ptr<ByteSource> open_byte_source(const std::filesystem::path& path);

}  // namespace nibble
