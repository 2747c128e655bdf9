// Arrays from and for other programs: one numeric matrix read from a .npy, .safetensors or HDF5 file, and named arrays
// written as .safetensors. Every size in a file is checked against the file and against this machine's memory before it
// is used. Errors name file, tensor and remedy: ExitCode::missing_input (no such file or tensor), bad_data (damaged, or
// not a kind of array that can be read), out_of_memory, usage (the location makes no sense), io.
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
  std::unique_ptr<Arena> memory;  // what tensor points into
  Tensor tensor;                  // [rows, cols], bf16 or f32: the leading axes flattened; a vector is [1, n]
  std::string name;               // of the tensor or dataset in the file; for .npy the file's name without ".npy"
  std::vector<int64_t> shape;     // as in the file; at least one axis, no axis empty
};

// location: "x.npy", "x.safetensors:blocks.0.w", "step-00001000/index.h5:parameters/blocks.0.w" (or .hdf5). The name
// may be left out where the file holds one array only. BF16 stays BF16; FP32 is kept, FP16 widened (exact), FP64
// rounded once to the nearest FP32 (a finite number beyond FP32's range is bad_data); infinities and NaN are kept. C
// order, little-endian (HDF5: either). A slice of a tensor in a rank file of a checkpoint is read in the tensor's
// shape, if it is the whole tensor; if not, it is an error that names the index.
LoadedArray load_array(const std::string& location);

struct NamedArray {
  std::string name;            // UTF-8, unique, not empty, not "__metadata__"
  std::string dtype;           // safetensors' name: "U8", "I32", "F8_E4M3", "F8_E5M2", "BF16", "F16", "F32", "F64"
  std::vector<int64_t> shape;  // any number of axes; none is a scalar
  const void* data = nullptr;  // row-major, little-endian
  size_t bytes = 0;            // elements times the dtype's size
};

// Writes a .safetensors file with every array aligned to its element size. The file appears complete, by rename after
// fsync. A file of that name is replaced if `overwrite` says so; otherwise ExitCode::cannot_create. Bytes of the
// metadata that are not UTF-8 become U+FFFD.
void save_safetensors(const std::filesystem::path& path, const std::vector<NamedArray>& arrays,
                      const std::map<std::string, std::string>& metadata, bool overwrite);

}  // namespace nibble
