// XXH3 hashes of bytes. The 128-bit digest is kept in its canonical (big-endian) byte order, so that to_hex() prints
// the digits that `xxhsum -H2` prints.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

struct Hash128 {
  std::array<uint8_t, 16> bytes = {};
  bool operator==(const Hash128&) const = default;
};

uint64_t hash64(std::span<const std::byte> data, uint64_t seed = 0);
uint64_t hash64(std::string_view text, uint64_t seed = 0);
Hash128 hash128(std::string_view text);
std::string to_hex(const Hash128& hash);  // 32 lower-case digits
std::string to_hex(uint64_t hash);        // 16 lower-case digits

}  // namespace nibble
