// The part of HDF5 that checkpoints use, with every return value checked. Numbers are little-endian; BF16 is a float
// type of 16 bits (sign bit 15, exponent 8 bits from 7 with bias 127, mantissa 7 bits), which readers widen without
// loss. Failures are ExitCode::io when writing and ExitCode::bad_data when reading, with HDF5's innermost message.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "quant/tensor/tensor.h"

namespace nibble {

class Hdf5Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Hdf5Handle() = default;
  Hdf5Handle(hid_t id, Close close_function) : id_(id), close_(close_function) {}
  ~Hdf5Handle() { close(); }
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  hid_t get() const { return id_; }
  // Returns a negative number on failure, which for a dataset or file can mean that its data was not written.
  herr_t close() {
    const hid_t id = std::exchange(id_, -1);
    return id < 0 ? 0 : close_(id);
  }

 private:
  hid_t id_ = -1;
  Close close_ = nullptr;
};

// The elements [offset, offset + count) of a tensor of this shape in row-major order. A rank file holds such a slice as
// the dataset /group/name [count] with the attributes `shape` and `offset`.
struct TensorSlice {
  std::string group;  // "optimizer/adam_m"
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  uint64_t offset = 0;
  uint64_t count = 0;
};

// Returns the slice that is a whole array; `name` is group and name, for example "quantization/amax_history".
TensorSlice whole_array(const std::string& name, const Tensor& values);

// A file that holds a slice of a tensor. Index datasets are put together from such parts and show the whole tensor.
struct VirtualPart {
  std::string file;  // relative to the index's directory
  TensorSlice slice;
};

// Writes a new file. Equal calls write equal bytes, because no times are stored.
class Hdf5Writer {
 public:
  explicit Hdf5Writer(const std::filesystem::path& path);

  void write_attribute(const char* name, uint64_t value);
  // Writes slice.count elements. The values must not change until close(), which compares the file with them.
  void write_slice(const TensorSlice& slice, std::span<const std::byte> values);
  // Writes the dataset /group/name in the tensor's shape; tensor.offset and tensor.count are not used. Elements that no
  // part holds, or whose file is missing, read as NaN.
  void write_virtual(const TensorSlice& tensor, const std::vector<VirtualPart>& parts);
  // Closes the file, reads every slice back through the operating system and compares it with memory.
  void close();

 private:
  struct Written {
    std::string dataset;
    uint64_t address = 0;
    std::span<const std::byte> values;
  };
  hid_t group(const std::string& name);
  Hdf5Handle create_dataset(const TensorSlice& tensor, const Hdf5Handle& space, const Hdf5Handle& properties);
  [[noreturn]] void fail(const std::string& action) const;
  void check(bool good, const std::string& action) const {
    if (!good) fail(action);
  }

  std::filesystem::path path_;
  Hdf5Handle file_;
  std::vector<std::pair<std::string, Hdf5Handle>> groups_;  // the open groups by full name
  std::vector<Written> written_;
};

// Reads a file whose hash the caller has checked.
class Hdf5Reader {
 public:
  explicit Hdf5Reader(const std::filesystem::path& path);
  // Reads the elements [begin, begin + destination size), counted from the slice's first element. The file must hold
  // exactly this slice: the same dtype, extent, shape and offset.
  void read_slice(const TensorSlice& slice, uint64_t begin, std::span<std::byte> destination);

 private:
  [[noreturn]] void fail(const std::string& action) const;
  void check(bool good, const std::string& action) const {
    if (!good) fail(action);
  }
  std::vector<uint64_t> read_attribute(const Hdf5Handle& object, const char* name, const std::string& dataset);

  std::filesystem::path path_;
  Hdf5Handle file_;
};

// Returns the version of the linked library, such as "1.10.8".
std::string hdf5_version();

// A box of a tensor: start and count along every axis.
struct Hyperslab {
  std::vector<uint64_t> start;
  std::vector<uint64_t> count;
};
// Splits the elements [begin, end) of the row-major order into boxes in that order. For a matrix these are the partial
// first row, the full rows, and the partial last row, if there are any.
std::vector<Hyperslab> hyperslabs_of_range(const std::vector<int64_t>& shape, uint64_t begin, uint64_t end);

}  // namespace nibble
