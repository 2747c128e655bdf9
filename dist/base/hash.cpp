#include "dist/base/hash.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <cstring>

namespace nibble {

uint64_t hash64(std::span<const std::byte> data, uint64_t seed) {
  return XXH3_64bits_withSeed(data.data(), data.size(), seed);
}

uint64_t hash64(std::string_view text, uint64_t seed) {
  return XXH3_64bits_withSeed(text.data(), text.size(), seed);
}

Hash128 hash128(std::string_view text) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(text.data(), text.size()));
  Hash128 hash;
  std::memcpy(hash.bytes.data(), canonical.digest, hash.bytes.size());
  return hash;
}

std::string to_hex(const Hash128& hash) {
  std::string text;
  for (const uint8_t byte : hash.bytes) text += fmt::format("{:02x}", byte);
  return text;
}

std::string to_hex(uint64_t hash) {
  return fmt::format("{:016x}", hash);
}

}  // namespace nibble
