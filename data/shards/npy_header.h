// The beginning of NumPy's .npy files, versions 1.0 to 3.0: the magic bytes, the version, the length of the header, and
// the header, which is a dictionary as Python prints it; the elements follow.
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace nibble {

struct NpyHeader {
  std::string descr;  // "<f4"
  bool fortran_order = false;
  std::vector<uint64_t> shape;
  uint64_t data_offset = 0;  // bytes before the first element
};

bool begins_as_npy(std::span<const std::byte> start);

// Reads the header of a file of `size` bytes through `read`(offset, bytes), which fills the bytes. Throws
// ExitCode::bad_data, with the file's name, for a header that is not NumPy's.
NpyHeader read_npy_header(const std::string& name, uint64_t size,
                          const std::function<void(uint64_t, std::span<std::byte>)>& read);

}  // namespace nibble
