// The part that the readers of array files share: the description of an array as a file states it, its checks, and the
// reading of its elements into a LoadedArray. Only the implementation of trainer/arrays/array_file.h includes this
// header. The readers are npy_file.cpp, safetensors_array.cpp and checkpoint_array.cpp.
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

// The types of an array's elements in a file. load_array() converts them to the DType of a Tensor.
enum class StoredDType : uint8_t { f16, bf16, f32, f64 };

constexpr uint64_t size_of(StoredDType type) {
  return type == StoredDType::f64 ? 8 : type == StoredDType::f32 ? 4 : 2;
}

struct StoredArray {
  std::string location;  // for messages: the file and, if it has a name there, the array
  std::string name;
  std::vector<uint64_t> shape;  // unchecked
  StoredDType type = StoredDType::f32;
};

// Returns the number of bytes that the elements take in the file. Throws ExitCode::bad_data if there is no axis, if an
// axis is empty, or if the number of bytes, in the file or as FP32, is beyond 63 bits.
uint64_t stored_bytes(const StoredArray& array);

// Fills the span with the next bytes of the array, which is row-major and little-endian. Throws if it cannot.
using ReadBytes = std::function<void(std::span<std::byte>)>;

// Takes memory for the array and reads its stored_bytes() bytes.
LoadedArray read_stored(const StoredArray& array, const ReadBytes& read);

// Reads the next target.size() elements as FP32, one block of elements at a time: a narrower type is exact, FP64 is
// rounded. Throws ExitCode::bad_data for a finite number beyond the range of FP32.
void read_floats(const StoredArray& array, const ReadBytes& read, std::span<float> target);

// Returns the text that stands for an array in messages: file, tensor "name".
std::string location_text(const std::filesystem::path& path, std::string_view name);

// Returns the end of a message that lists the arrays of a file: up to ten names in quotes, and how many more there are.
std::string listed(const std::vector<std::string>& names, size_t total);

// Throws ExitCode::bad_data: "LOCATION: COMPLAINT".
[[noreturn]] void fail_array(const std::string& location, std::string_view complaint,
                             const std::string& remedy = "write the file again, or restore it from a copy");

// One reader for each kind of file. `name` is that of the array in the file; an empty name asks for the only array.
LoadedArray load_npy(const std::filesystem::path& path);
LoadedArray load_safetensors(const std::filesystem::path& path, const std::string& name);
LoadedArray load_checkpoint_array(const std::filesystem::path& path, const std::string& name);

}  // namespace nibble
