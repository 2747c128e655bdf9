// Arrays that are exchanged with other programs: load_array() reads one numeric matrix from a .npy or .safetensors file
// or from a checkpoint, and save_safetensors() writes named arrays. Every size in a file is checked against the file
// and against this machine's memory before it is used. Errors name file, tensor and remedy: ExitCode::missing_input (no
// such file or tensor), bad_data (damaged, or an array of a kind that cannot be read), out_of_memory, usage (a location
// of a wrong form), io.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dist/device/arena.h"
#include "quant/tensor/tensor.h"

namespace nibble {

struct LoadedArray {
  std::unique_ptr<Arena> memory;  // owns the memory that `tensor` points into
  Tensor tensor;                  // [rows, cols], bf16 or f32: the leading axes flattened; a vector is [1, n]
  std::string name;               // the tensor's or dataset's name; for .npy the file's name without ".npy"
  std::vector<int64_t> shape;     // as in the file; at least one axis, no axis empty
};

// Loads the array at a location: "x.npy", "x.safetensors:blocks.0.w" or "step-00001000/index.h5:parameters/blocks.0.w".
// The name may be left out if the file holds one array only. BF16 and FP32 are kept, FP16 is widened to FP32 (exact),
// and FP64 is rounded once to the nearest FP32; a finite number beyond the range of FP32 is bad_data. Infinities and
// NaN are kept. Elements must be in C order and little-endian. An .h5 or .hdf5 file must be one of a checkpoint, of
// which every file is compared with the manifest first (bad_data if one differs); any of its files stands for the whole
// checkpoint. Other HDF5 files are bad_data: the remedy says how to convert them.
LoadedArray load_array(const std::string& location);

struct NamedArray {
  std::string name;            // UTF-8, unique, not empty, not "__metadata__"
  std::string dtype;           // safetensors' name: "U8", "I32", "F8_E4M3", "F8_E5M2", "BF16", "F16", "F32", "F64"
  std::vector<int64_t> shape;  // any number of axes; none is a scalar
  const void* data = nullptr;  // row-major, little-endian
  size_t bytes = 0;            // elements times the dtype's size
};

// Writes a .safetensors file in which every array is aligned to its element size. The file appears complete, by rename
// after fsync. An existing file is replaced if `overwrite` is true; otherwise it is ExitCode::cannot_create. Bytes of
// the metadata that are not UTF-8 become U+FFFD.
void save_safetensors(const std::filesystem::path& path, const std::vector<NamedArray>& arrays,
                      const std::map<std::string, std::string>& metadata, bool overwrite);

}  // namespace nibble
