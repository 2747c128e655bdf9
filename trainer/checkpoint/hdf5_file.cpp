#include "trainer/checkpoint/hdf5_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "dist/base/error.h"
#include "dist/base/file_descriptor.h"

namespace nibble {

static_assert(std::endian::native == std::endian::little, "checkpoints are little-endian");

namespace {

constexpr size_t comparison_block = size_t{1} << 20;

herr_t keep_innermost(unsigned number, const H5E_error2_t* entry, void* text) {
  if (number == 0 && entry->desc != nullptr) *static_cast<std::string*>(text) = entry->desc;
  return 0;
}

// Turns three things off: the exit handler, which crashes when a full disk has left unwritten data; file locks, unless
// the user wants them, because they fail on network file systems; and the library's traces on standard error.
void initialize_hdf5() {
  [[maybe_unused]] static const bool done = [] {
    setenv("HDF5_USE_FILE_LOCKING", "FALSE", 0);
    H5dont_atexit();
    NIBBLE_CHECK(H5open() >= 0 && H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0, "HDF5 does not start");
    return true;
  }();
}

// Shortens the message of a failed system call, which reads "..., error message = 'No space left on device', ...", to
// the quoted part.
std::string hdf5_message() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, &keep_innermost, &text);
  const std::string marker = "error message = '";
  if (const size_t begin = text.find(marker); begin != std::string::npos) {
    const size_t first = begin + marker.size();
    return text.substr(first, text.find('\'', first) - first);
  }
  return text.empty() ? "no reason given" : text;
}

Hdf5Handle property_list(hid_t kind) {
  return {H5Pcreate(kind), &H5Pclose};
}

Hdf5Handle access_properties() {
  Hdf5Handle properties = property_list(H5P_FILE_ACCESS);
  // Version 2 of the superblock has checksummed metadata, and no mark that a killed writer's file is still open.
  const bool good = H5Pset_libver_bounds(properties.get(), H5F_LIBVER_V18, H5F_LIBVER_LATEST) >= 0 &&
                    H5Pset_alignment(properties.get(), 1 << 20, 4096) >= 0;
  NIBBLE_CHECK(good, "HDF5 access properties");
  return properties;
}

// The float type of BF16: sign bit 15, exponent bits 7 to 14 with bias 127, mantissa bits 0 to 6; little-endian.
Hdf5Handle bf16_type() {
  Hdf5Handle type(H5Tcopy(H5T_IEEE_F32LE), &H5Tclose);
  const hid_t id = type.get();
  const bool good = H5Tset_fields(id, 15, 7, 8, 0, 7) >= 0 && H5Tset_precision(id, 16) >= 0 &&
                    H5Tset_ebias(id, 127) >= 0 && H5Tset_size(id, 2) >= 0;
  NIBBLE_CHECK(good, "HDF5 type of 16 bits");
  return type;
}

Hdf5Handle type_of(DType dtype) {
  switch (dtype) {
    case DType::bf16: return bf16_type();
    case DType::f32: return {H5Tcopy(H5T_IEEE_F32LE), &H5Tclose};
    case DType::u8: return {H5Tcopy(H5T_STD_U8LE), &H5Tclose};
    case DType::i32: return {H5Tcopy(H5T_STD_I32LE), &H5Tclose};
    case DType::i64: return {H5Tcopy(H5T_STD_I64LE), &H5Tclose};
  }
  fail_check(__FILE__, __LINE__, "dtype", "unknown dtype");
}

Hdf5Handle vector_space(uint64_t count) {
  const hsize_t extent = count;
  return {H5Screate_simple(1, &extent, nullptr), &H5Sclose};
}

std::string dataset_name(const TensorSlice& slice) {
  return fmt::format("/{}/{}", slice.group, slice.name);
}

bool write_attribute_to(hid_t object, const char* name, std::span<const uint64_t> values, bool scalar) {
  const Hdf5Handle space = scalar ? Hdf5Handle(H5Screate(H5S_SCALAR), &H5Sclose) : vector_space(values.size());
  Hdf5Handle attribute(H5Acreate2(object, name, H5T_STD_U64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT), &H5Aclose);
  return attribute.get() >= 0 && H5Awrite(attribute.get(), H5T_NATIVE_UINT64, values.data()) >= 0 &&
         attribute.close() >= 0;
}

void append_hyperslabs(const std::vector<int64_t>& shape, size_t axis, std::vector<uint64_t>& prefix, uint64_t begin,
                       uint64_t end, std::vector<Hyperslab>& result) {
  uint64_t row = 1;  // number of elements for one index of this axis
  for (size_t inner = axis + 1; inner < shape.size(); ++inner) row *= static_cast<uint64_t>(shape[inner]);
  while (begin < end) {
    const uint64_t index = begin / row;
    const uint64_t full_rows = begin % row == 0 ? (end - begin) / row : 0;
    if (full_rows > 0) {
      Hyperslab slab{prefix, std::vector<uint64_t>(axis, 1)};
      slab.start.push_back(index);
      slab.count.push_back(full_rows);
      slab.start.resize(shape.size(), 0);
      for (size_t inner = axis + 1; inner < shape.size(); ++inner) {
        slab.count.push_back(static_cast<uint64_t>(shape[inner]));
      }
      result.push_back(std::move(slab));
      begin += full_rows * row;
    } else {
      const uint64_t stop = std::min(end, (index + 1) * row);
      prefix.push_back(index);
      append_hyperslabs(shape, axis + 1, prefix, begin - index * row, stop - index * row, result);
      prefix.pop_back();
      begin = stop;
    }
  }
}

// Returns the bytes of a NaN of this dtype; they are empty for integers.
std::span<const std::byte> nan_of(DType dtype) {
  static constexpr std::array<std::byte, 4> f32{std::byte{0}, std::byte{0}, std::byte{0xC0}, std::byte{0x7F}};
  if (dtype == DType::f32) return f32;
  if (dtype == DType::bf16) return std::span(f32).last(2);
  return {};
}

}  // namespace

std::vector<Hyperslab> hyperslabs_of_range(const std::vector<int64_t>& shape, uint64_t begin, uint64_t end) {
  std::vector<Hyperslab> result;
  std::vector<uint64_t> prefix;
  append_hyperslabs(shape, 0, prefix, begin, end, result);
  return result;
}

std::string hdf5_version() {
  initialize_hdf5();
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;
  NIBBLE_CHECK(H5get_libversion(&major, &minor, &release) >= 0, "HDF5 version");
  return fmt::format("{}.{}.{}", major, minor, release);
}

TensorSlice whole_array(const std::string& name, const Tensor& values) {
  const size_t slash = name.rfind('/');
  NIBBLE_CHECK(slash != std::string::npos && values.elements() > 0, "array without a group, or empty: " + name);
  TensorSlice slice{name.substr(0, slash), name.substr(slash + 1), values.dtype(), {}, 0, 0};
  for (int axis = 0; axis < values.rank(); ++axis) slice.shape.push_back(values.size(axis));
  slice.count = static_cast<uint64_t>(values.elements());
  return slice;
}

Hdf5Writer::Hdf5Writer(const std::filesystem::path& path) : path_(path) {
  initialize_hdf5();
  const Hdf5Handle creation = property_list(H5P_FILE_CREATE);
  const Hdf5Handle access = access_properties();
  check(H5Pset_obj_track_times(creation.get(), false) >= 0, "prepare");
  file_ = Hdf5Handle(H5Fcreate(path.c_str(), H5F_ACC_EXCL, creation.get(), access.get()), &H5Fclose);
  check(file_.get() >= 0, "create");
}

void Hdf5Writer::fail(const std::string& action) const {
  throw Error(ExitCode::io, fmt::format("cannot {} {}: {}", action, path_.string(), hdf5_message()),
              "free disk space or check the file system, then resume from the last checkpoint");
}

void Hdf5Writer::write_attribute(const char* name, uint64_t value) {
  check(write_attribute_to(file_.get(), name, {&value, 1}, true), "write attributes of");
}

// Returns the group, which is created with its parents at first use. H5Dcreate could create groups too, but would store
// their times.
hid_t Hdf5Writer::group(const std::string& name) {
  for (const auto& [known, handle] : groups_) {
    if (known == name) return handle.get();
  }
  const size_t slash = name.rfind('/');
  const hid_t parent = slash == std::string::npos ? file_.get() : group(name.substr(0, slash));
  const std::string leaf = slash == std::string::npos ? name : name.substr(slash + 1);
  const Hdf5Handle properties = property_list(H5P_GROUP_CREATE);
  check(H5Pset_obj_track_times(properties.get(), false) >= 0, "prepare");
  Hdf5Handle created(H5Gcreate2(parent, leaf.c_str(), H5P_DEFAULT, properties.get(), H5P_DEFAULT), &H5Gclose);
  check(created.get() >= 0, fmt::format("create the group {} in", name));
  groups_.emplace_back(name, std::move(created));
  return groups_.back().second.get();
}

Hdf5Handle Hdf5Writer::create_dataset(const TensorSlice& tensor, const Hdf5Handle& space,
                                      const Hdf5Handle& properties) {
  check(H5Pset_obj_track_times(properties.get(), false) >= 0, "prepare");
  const Hdf5Handle type = type_of(tensor.dtype);
  Hdf5Handle dataset(H5Dcreate2(group(tensor.group), tensor.name.c_str(), type.get(), space.get(), H5P_DEFAULT,
                                properties.get(), H5P_DEFAULT),
                     &H5Dclose);
  check(dataset.get() >= 0, fmt::format("create {} in", dataset_name(tensor)));
  return dataset;
}

void Hdf5Writer::write_slice(const TensorSlice& slice, std::span<const std::byte> values) {
  NIBBLE_CHECK(slice.count > 0 && values.size() == slice.count * size_of(slice.dtype), "slice and values differ");
  const std::string action = fmt::format("write {} to", dataset_name(slice));
  const Hdf5Handle properties = property_list(H5P_DATASET_CREATE);
  check(H5Pset_layout(properties.get(), H5D_CONTIGUOUS) >= 0, action);
  check(H5Pset_fill_time(properties.get(), H5D_FILL_TIME_NEVER) >= 0, action);
  Hdf5Handle dataset = create_dataset(slice, vector_space(slice.count), properties);
  const std::vector<uint64_t> shape(slice.shape.begin(), slice.shape.end());
  check(write_attribute_to(dataset.get(), "shape", shape, false), action);
  check(write_attribute_to(dataset.get(), "offset", {&slice.offset, 1}, true), action);
  const Hdf5Handle type = type_of(slice.dtype);
  check(H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0, action);
  const haddr_t address = H5Dget_offset(dataset.get());
  check(address != HADDR_UNDEF, action);
  check(dataset.close() >= 0, action);
  written_.push_back({dataset_name(slice), address, values});
}

void Hdf5Writer::write_virtual(const TensorSlice& tensor, const std::vector<VirtualPart>& parts) {
  const std::string action = fmt::format("write {} to", dataset_name(tensor));
  const std::vector<hsize_t> extent(tensor.shape.begin(), tensor.shape.end());
  const Hdf5Handle space(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr), &H5Sclose);
  const Hdf5Handle properties = property_list(H5P_DATASET_CREATE);
  const Hdf5Handle type = type_of(tensor.dtype);
  if (const std::span<const std::byte> nan = nan_of(tensor.dtype); !nan.empty()) {
    check(H5Pset_fill_value(properties.get(), type.get(), nan.data()) >= 0, action);
  }
  for (const VirtualPart& part : parts) {
    const TensorSlice& slice = part.slice;
    const Hdf5Handle source = vector_space(slice.count);
    uint64_t done = 0;
    for (const Hyperslab& slab : hyperslabs_of_range(tensor.shape, slice.offset, slice.offset + slice.count)) {
      const std::vector<hsize_t> start(slab.start.begin(), slab.start.end());
      const std::vector<hsize_t> count(slab.count.begin(), slab.count.end());
      const hsize_t source_start = done;
      hsize_t elements = 1;
      for (const hsize_t length : count) elements *= length;
      done += elements;
      check(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) >= 0 &&
                H5Sselect_hyperslab(source.get(), H5S_SELECT_SET, &source_start, nullptr, &elements, nullptr) >= 0 &&
                H5Pset_virtual(properties.get(), space.get(), part.file.c_str(), dataset_name(slice).c_str(),
                               source.get()) >= 0,
            action);
    }
  }
  check(H5Sselect_all(space.get()) >= 0, action);
  check(create_dataset(tensor, space, properties).close() >= 0, action);
}

void Hdf5Writer::close() {
  for (auto& [name, handle] : groups_) check(handle.close() >= 0, fmt::format("close the group {} of", name));
  groups_.clear();
  check(H5Fflush(file_.get(), H5F_SCOPE_GLOBAL) >= 0, "write");
  check(file_.close() >= 0, "close");
  const FileDescriptor file(path_, O_RDONLY);
  std::vector<std::byte> buffer(comparison_block);
  for (const Written& slice : written_) {
    for (size_t done = 0; done < slice.values.size();) {
      const size_t wanted = std::min(buffer.size(), slice.values.size() - done);
      const ssize_t got = pread(file.get(), buffer.data(), wanted, static_cast<off_t>(slice.address + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail_system_call("read back", path_, errno);
      if (got == 0 || std::memcmp(buffer.data(), slice.values.data() + done, static_cast<size_t>(got)) != 0) {
        throw Error(ExitCode::io, fmt::format("{} in {} does not read back as written", slice.dataset, path_.string()),
                    "check the disk, then resume from the last checkpoint");
      }
      done += static_cast<size_t>(got);
    }
  }
}

Hdf5Reader::Hdf5Reader(const std::filesystem::path& path) : path_(path) {
  initialize_hdf5();
  const Hdf5Handle access = access_properties();
  file_ = Hdf5Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), &H5Fclose);
  check(file_.get() >= 0, "open");
}

void Hdf5Reader::fail(const std::string& action) const {
  throw Error(ExitCode::bad_data, fmt::format("cannot {} {}: {}", action, path_.string(), hdf5_message()),
              "use another checkpoint");
}

std::vector<uint64_t> Hdf5Reader::read_attribute(const Hdf5Handle& object, const char* name,
                                                 const std::string& dataset) {
  const std::string action = fmt::format("read the attribute {} of {} in", name, dataset);
  const Hdf5Handle attribute(H5Aopen(object.get(), name, H5P_DEFAULT), &H5Aclose);
  check(attribute.get() >= 0, action);
  const Hdf5Handle space(H5Aget_space(attribute.get()), &H5Sclose);
  const hssize_t count = H5Sget_simple_extent_npoints(space.get());
  check(count >= 0 && count <= 16, action);
  std::vector<uint64_t> values(static_cast<size_t>(count));
  check(H5Aread(attribute.get(), H5T_NATIVE_UINT64, values.data()) >= 0, action);
  return values;
}

void Hdf5Reader::read_slice(const TensorSlice& slice, uint64_t begin, std::span<std::byte> destination) {
  const std::string name = dataset_name(slice);
  const Hdf5Handle dataset(H5Dopen2(file_.get(), name.c_str(), H5P_DEFAULT), &H5Dclose);
  check(dataset.get() >= 0, fmt::format("find {} in", name));
  const Hdf5Handle stored_type(H5Dget_type(dataset.get()), &H5Tclose);
  const Hdf5Handle type = type_of(slice.dtype);
  const Hdf5Handle space(H5Dget_space(dataset.get()), &H5Sclose);
  const std::vector<uint64_t> shape(slice.shape.begin(), slice.shape.end());
  hsize_t extent = 0;
  const bool fits = H5Tequal(stored_type.get(), type.get()) > 0 && H5Sget_simple_extent_ndims(space.get()) == 1 &&
                    H5Sget_simple_extent_dims(space.get(), &extent, nullptr) == 1 && extent == slice.count &&
                    read_attribute(dataset, "shape", name) == shape &&
                    read_attribute(dataset, "offset", name) == std::vector<uint64_t>{slice.offset};
  if (!fits) {
    throw Error(ExitCode::bad_data,
                fmt::format("{} in {} is not {} elements of {} from element {} on, as the manifest says", name,
                            path_.string(), slice.count, name_of(slice.dtype), slice.offset),
                "use another checkpoint");
  }
  const hsize_t start = begin;
  const hsize_t count = destination.size() / size_of(slice.dtype);
  NIBBLE_CHECK(start <= extent && count <= extent - start, "range beyond the slice");
  const Hdf5Handle memory = vector_space(count);
  check(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &count, nullptr) >= 0 &&
            H5Dread(dataset.get(), type.get(), memory.get(), space.get(), H5P_DEFAULT, destination.data()) >= 0,
        fmt::format("read {} in", name));
}

}  // namespace nibble
