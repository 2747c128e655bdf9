// Single code points of valid UTF-8 text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nibble {

struct CodePoint {
  uint32_t code;
  size_t size;  // bytes
};

inline size_t code_point_size(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// Returns the code point that begins at `at` in valid UTF-8 text.
inline CodePoint code_point_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[at + i])); };
  const auto tail = [&](size_t i) { return byte(i) & 0x3FU; };
  const size_t size = code_point_size(text[at]);
  if (size == 1) return {byte(0), 1};
  if (size == 2) return {(byte(0) & 0x1FU) << 6U | tail(1), 2};
  if (size == 3) return {(byte(0) & 0xFU) << 12U | tail(1) << 6U | tail(2), 3};
  return {(byte(0) & 0x7U) << 18U | tail(1) << 12U | tail(2) << 6U | tail(3), 4};
}

// Returns the code point that ends before `end`, which is > 0.
inline CodePoint code_point_before(std::string_view text, size_t end) {
  size_t at = end - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) --at;
  return code_point_at(text, at);
}

inline void append_code_point(std::string& text, uint32_t code) {
  const auto add = [&](uint32_t byte) { text += static_cast<char>(byte); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xC0U | code >> 6U), add(0x80U | (code & 0x3FU));
  } else if (code < 0x10000) {
    add(0xE0U | code >> 12U), add(0x80U | (code >> 6U & 0x3FU)), add(0x80U | (code & 0x3FU));
  } else {
    add(0xF0U | code >> 18U), add(0x80U | (code >> 12U & 0x3FU)), add(0x80U | (code >> 6U & 0x3FU));
    add(0x80U | (code & 0x3FU));
  }
}

}  // namespace nibble
