// What the readers of array files share: the description of an array as a file states it, its checks, and the reading
// of its elements into a LoadedArray. Included by the implementation of trainer/arrays/array_file.h only.
// The readers are npy_file.cpp, safetensors_file.cpp and hdf5_array.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/arrays/array_file.h"

namespace nibble {

enum class ElementType : uint8_t { f16, bf16, f32, f64 };

constexpr uint64_t size_of(ElementType type) {
  return type == ElementType::f64 ? 8 : type == ElementType::f32 ? 4 : 2;
}

struct StoredArray {
  std::string place;  // for messages: the file and, if it has a name there, the array
  std::string name;
  std::vector<uint64_t> shape;  // unchecked
  ElementType type = ElementType::f32;
};

// Bytes of the elements in the file. ExitCode::bad_data if there is no axis, an axis is empty, or the number of bytes,
// also as FP32, is beyond 63 bits.
uint64_t stored_bytes(const StoredArray& array);

// Fills the span with the array's next bytes: row-major, little-endian. Throws if it cannot.
using ReadBytes = std::function<void(std::span<std::byte>)>;

// Takes memory and reads stored_bytes() bytes.
LoadedArray read_stored(const StoredArray& array, const ReadBytes& read);

// "file, tensor "name"".
std::string place_of(const std::filesystem::path& path, std::string_view name);

// The end of a message that lists an array file's contents: up to ten names, quoted, and how many more there are.
std::string listed(const std::vector<std::string>& names, size_t total);

// Throws ExitCode::bad_data: "PLACE: COMPLAINT".
[[noreturn]] void fail_array(const std::string& place, std::string_view complaint,
                             const std::string& remedy = "write the file again, or restore it from a copy");

// One reader for each kind of file. name: of the array in the file; empty: the only one.
LoadedArray load_npy(const std::filesystem::path& path);
LoadedArray load_safetensors(const std::filesystem::path& path, const std::string& name);
LoadedArray load_hdf5(const std::filesystem::path& path, const std::string& name);

}  // namespace nibble
