// Reads and writes the little-endian integers of files, at any alignment.
#pragma once

#include <bit>
#include <cstddef>
#include <cstring>
#include <span>

namespace nibble {

static_assert(std::endian::native == std::endian::little, "files are read and written in place, little-endian");

template <class Integer>
Integer load_little_endian(std::span<const std::byte> data, size_t offset) {
  Integer value = 0;
  std::memcpy(&value, data.subspan(offset, sizeof(Integer)).data(), sizeof(Integer));
  return value;
}

template <class Integer>
void store_little_endian(std::span<std::byte> data, size_t offset, Integer value) {
  std::memcpy(data.subspan(offset, sizeof(Integer)).data(), &value, sizeof(Integer));
}

}  // namespace nibble
