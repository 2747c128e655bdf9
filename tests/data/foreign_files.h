// Files of tokens as other programs write them, byte for byte from the descriptions of their layouts.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace nibble {

template <class Value>
void append(std::string& bytes, Value value) {
  for (size_t i = 0; i < sizeof(Value); ++i) {
    bytes.push_back(static_cast<char>(static_cast<std::make_unsigned_t<Value>>(value) >> (8 * i)));
  }
}

template <class Value>
void append(std::string& bytes, const std::vector<Value>& values) {
  for (const Value value : values) append(bytes, value);
}

// Megatron's PREFIX.idx for sequences of these lengths, with whatever a test changes.
struct MegatronIndex {
  std::vector<int32_t> lengths;
  std::vector<int64_t> documents;  // 0, ..., the number of sequences
  uint8_t type = 8;
  int64_t token_bytes = 2;
  uint64_t version = 1;
  std::vector<int8_t> modes = {};

  std::string bytes() const {
    std::string text("MMIDIDX\0\0", 9);
    append(text, version);
    append(text, type);
    append(text, uint64_t{lengths.size()});
    append(text, uint64_t{documents.size()});
    append(text, lengths);
    int64_t position = 0;
    for (const int32_t length : lengths) {
      append(text, position);
      position += length * token_bytes;
    }
    append(text, documents);
    append(text, modes);
    return text;
  }
};

// A .npy file of version 1.0 with one axis.
inline std::string npy_file(const std::string& type, size_t count, const std::string& content) {
  std::string header = "{'descr': '" + type + "', 'fortran_order': False, 'shape': (" + std::to_string(count) + ",), }";
  header.resize((header.size() + 11 + 63) / 64 * 64 - 11, ' ');
  header += '\n';
  std::string bytes("\x93NUMPY\x01\x00", 8);
  append(bytes, static_cast<uint16_t>(header.size()));
  return bytes + header + content;
}

}  // namespace nibble
