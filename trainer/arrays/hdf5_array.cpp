// Reads a dataset of an HDF5 file as an array. The library runs in a child process, because it validates little of what
// it reads: single flipped bytes can make it crash or loop.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "trainer/arrays/child_stream.h"
#include "trainer/arrays/hdf5_file.h"
#include "trainer/arrays/stored_array.h"
#include "trainer/config/yaml_document.h"

namespace nibble {

namespace {

constexpr size_t block_bytes = size_t{1} << 20;
constexpr size_t max_rank = 32;  // limit of HDF5
constexpr uint64_t max_name_bytes = uint64_t{1} << 16;
constexpr uint64_t max_cache_bytes = uint64_t{1} << 30;

// The description of the dataset that the child sends before the name and the elements.
struct Preamble {
  uint64_t type = 0;
  uint64_t rank = 0;
  uint64_t name_bytes = 0;
  std::array<uint64_t, max_rank> shape{};
};

// ---- in the child ----

struct Listing {
  std::vector<std::string> names;  // the first few
  size_t total = 0;
};

class DatasetSource {
 public:
  DatasetSource(const std::filesystem::path& path, const std::string& name) : path_(path) {
    initialize_hdf5();
    file_ = open_file(path);
    array_.place = path.string();
    check(file_.get() >= 0, "this is no HDF5 file that can be opened");
    array_.name = name.empty() ? only_dataset() : name;
    array_.place = place_of(path, array_.name);
    open();
    find_type();
    find_shape();
    refuse_missing_sources();
    enlarge_chunk_cache();
  }

  void send(const ChildStream::Write& write) const {
    Preamble preamble{static_cast<uint64_t>(array_.type), array_.shape.size(), array_.name.size()};
    std::copy(array_.shape.begin(), array_.shape.end(), preamble.shape.begin());
    write(std::as_bytes(std::span(&preamble, 1)));
    write(std::as_bytes(std::span(array_.name)));
    send_elements(write);
  }

 private:
  static Hdf5Handle open_file(const std::filesystem::path& path) {
    return {H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), &H5Fclose};
  }
  void check(bool good, const char* complaint) const {
    if (!good) fail_array(array_.place, fmt::format("{}: {}", complaint, hdf5_message()));
  }

  Listing list() const {
    Listing listing;
    // The parameter is `auto` because H5Ovisit2 passes different structures in different versions of the library.
    const auto collect = [](hid_t, const char* name, const auto* info, void* target) -> herr_t {
      auto* const result = static_cast<Listing*>(target);
      if (info->type == H5O_TYPE_DATASET && ++result->total <= 10) result->names.emplace_back(name);
      return 0;
    };
    check(H5Ovisit2(file_.get(), H5_INDEX_NAME, H5_ITER_INC, collect, &listing, H5O_INFO_BASIC) >= 0,
          "cannot list its datasets");
    return listing;
  }

  std::string only_dataset() const {
    const Listing listing = list();
    if (listing.total == 1) return listing.names.front();
    if (listing.total == 0) fail_array(array_.place, "the file holds no dataset", "check the path");
    throw Error(
        ExitCode::usage,
        fmt::format("{}: holds {} datasets: {}", array_.place, listing.total, listed(listing.names, listing.total)),
        fmt::format("name one: {}:PATH/TO/DATASET", array_.place));
  }

  void open() {
    dataset_ = Hdf5Handle(H5Dopen2(file_.get(), array_.name.c_str(), H5P_DEFAULT), &H5Dclose);
    if (dataset_.get() < 0) {
      const std::string reason = hdf5_message();
      const Listing listing = list();
      throw Error(ExitCode::missing_input,
                  fmt::format("{}: cannot open such a dataset ({}); the file holds {}", array_.place, reason,
                              listing.total == 0 ? "none" : listed(listing.names, listing.total)),
                  "check the dataset's name");
    }
    space_ = Hdf5Handle(H5Dget_space(dataset_.get()), &H5Sclose);
    creation_ = Hdf5Handle(H5Dget_create_plist(dataset_.get()), &H5Pclose);
    check(space_.get() >= 0 && creation_.get() >= 0, "cannot read its description");
  }

  // Finds the element type. The library converts big-endian numbers; all others are read as they are stored.
  void find_type() {
    const Hdf5Handle stored(H5Dget_type(dataset_.get()), &H5Tclose);
    check(stored.get() >= 0, "cannot read its type");
    const Hdf5Handle ordered(H5Tcopy(stored.get()), &H5Tclose);
    if (H5Tget_class(stored.get()) == H5T_FLOAT && H5Tset_order(ordered.get(), H5T_ORDER_LE) >= 0) {
      for (const ElementType type : {ElementType::f16, ElementType::bf16, ElementType::f32, ElementType::f64}) {
        type_ = hdf5_type_of(type);
        array_.type = type;
        if (H5Tequal(ordered.get(), type_.get()) > 0) return;
      }
    }
    fail_array(array_.place, "its elements are not of type FP16, BF16, FP32 or FP64",
               "convert it, with h5py for instance: file.create_dataset(name, data=array.astype(\"<f4\"))");
  }

  static Hdf5Handle hdf5_type_of(ElementType type) {
    switch (type) {
      case ElementType::f16: return hdf5_half_type(HalfFormat::f16);
      case ElementType::bf16: return hdf5_half_type(HalfFormat::bf16);
      case ElementType::f64: return {H5Tcopy(H5T_IEEE_F64LE), &H5Tclose};
      case ElementType::f32: break;
    }
    return {H5Tcopy(H5T_IEEE_F32LE), &H5Tclose};
  }

  void find_shape() {
    const int rank = H5Sget_simple_extent_ndims(space_.get());
    check(rank >= 0 && static_cast<size_t>(rank) <= max_rank, "cannot read its shape");
    array_.shape.assign(static_cast<size_t>(rank), 0);
    std::array<hsize_t, max_rank> extents{};
    check(H5Sget_simple_extent_dims(space_.get(), extents.data(), nullptr) == rank, "cannot read its shape");
    std::copy_n(extents.begin(), rank, array_.shape.begin());
    stored_bytes(array_);  // throws if the shape is not valid
    stored_shape_.assign(array_.shape.begin(), array_.shape.end());
    if (rank == 1) use_shape_of_slice();
  }

  // Returns the unsigned integers of an attribute, or nothing if there is no such attribute.
  std::optional<std::vector<uint64_t>> attribute(const char* name) const {
    if (H5Aexists(dataset_.get(), name) <= 0) return std::nullopt;
    const Hdf5Handle object(H5Aopen(dataset_.get(), name, H5P_DEFAULT), &H5Aclose);
    const Hdf5Handle type(H5Aget_type(object.get()), &H5Tclose);
    const Hdf5Handle space(H5Aget_space(object.get()), &H5Sclose);
    const hssize_t count = H5Sget_simple_extent_npoints(space.get());
    if (H5Tequal(type.get(), H5T_STD_U64LE) <= 0 || count < 1 || count > static_cast<hssize_t>(max_rank)) {
      return std::nullopt;
    }
    std::vector<uint64_t> values(static_cast<size_t>(count));
    check(H5Aread(object.get(), H5T_NATIVE_UINT64, values.data()) >= 0, "cannot read its attributes");
    return values;
  }

  // Takes the shape of the tensor from the attributes if the dataset is a flat slice in a rank file of a checkpoint.
  void use_shape_of_slice() {
    const auto shape = attribute("shape");
    const auto offset = attribute("offset");
    if (!shape || !offset || offset->size() != 1) return;
    StoredArray tensor = array_;
    tensor.shape = *shape;
    const uint64_t elements = stored_bytes(tensor) / size_of(tensor.type);
    const uint64_t count = array_.shape[0];
    if (offset->front() == 0 && count == elements) {
      array_ = std::move(tensor);
    } else if (offset->front() <= elements && count <= elements - offset->front()) {
      fail_array(array_.place,
                 fmt::format("only a slice, elements {} to {} of a tensor of shape [{}]", offset->front(),
                             offset->front() + count - 1, fmt::join(*shape, ", ")),
                 "read it from index.h5 in the same directory, which shows every tensor whole");
    }
  }

  // Refuses a virtual dataset with a missing source: the library would silently return fill values for it.
  void refuse_missing_sources() const {
    if (H5Pget_layout(creation_.get()) != H5D_VIRTUAL) return;
    size_t count = 0;
    check(H5Pget_virtual_count(creation_.get(), &count) >= 0, "cannot read its sources");
    std::set<std::pair<std::string, std::string>> seen;
    for (size_t i = 0; i < count; ++i) {
      const std::string file = text_of(&H5Pget_virtual_filename, i);
      const std::string dataset = text_of(&H5Pget_virtual_dsetname, i);
      if (!seen.emplace(file, dataset).second) continue;
      if (file == ".") {
        require_dataset(file_, path_, dataset);
        continue;
      }
      const std::filesystem::path source = path_.parent_path() / file;
      const InputFile exists(source);
      require_dataset(open_file(source), source, dataset);
    }
  }

  template <class Getter>
  std::string text_of(Getter getter, size_t index) const {
    const ssize_t size = getter(creation_.get(), index, nullptr, 0);
    check(size > 0 && static_cast<uint64_t>(size) < max_name_bytes, "cannot read its sources");
    std::string text(static_cast<size_t>(size), '\0');
    check(getter(creation_.get(), index, text.data(), text.size() + 1) == size, "cannot read its sources");
    return text;
  }

  void require_dataset(const Hdf5Handle& file, const std::filesystem::path& path, const std::string& name) const {
    const Hdf5Handle source(file.get() < 0 ? -1 : H5Dopen2(file.get(), name.c_str(), H5P_DEFAULT), &H5Dclose);
    if (source.get() < 0) {
      fail_array(array_.place,
                 fmt::format("a part of it, {} in {}, cannot be read: {}", shown(name), path.string(), hdf5_message()));
    }
  }

  // Makes the cache large enough for all chunks that lie side by side; otherwise every block that is read would unpack
  // them again.
  void enlarge_chunk_cache() {
    if (H5Pget_layout(creation_.get()) != H5D_CHUNKED) return;
    std::array<hsize_t, max_rank> chunk{};
    const auto rank = static_cast<int>(stored_shape_.size());
    check(H5Pget_chunk(creation_.get(), rank, chunk.data()) == rank, "cannot read its chunks");
    uint64_t chunks = 1;
    uint64_t bytes = size_of(array_.type);
    for (size_t axis = 0; axis < stored_shape_.size(); ++axis) {
      check(chunk[axis] > 0, "cannot read its chunks");
      const uint64_t across =
          axis == 0 ? 1 : div_ceil<uint64_t>(static_cast<uint64_t>(stored_shape_[axis]), chunk[axis]);
      if (__builtin_mul_overflow(chunks, across, &chunks) || __builtin_mul_overflow(bytes, across, &bytes) ||
          __builtin_mul_overflow(bytes, chunk[axis], &bytes)) {
        return;
      }
    }
    const size_t slots = 10 * std::min<uint64_t>(chunks, 100'000) + 521;
    const Hdf5Handle access(H5Pcreate(H5P_DATASET_ACCESS), &H5Pclose);
    check(H5Pset_chunk_cache(access.get(), slots, std::clamp<uint64_t>(bytes, block_bytes, max_cache_bytes), 1.0) >= 0,
          "cannot prepare to read it");
    dataset_ = Hdf5Handle();
    dataset_ = Hdf5Handle(H5Dopen2(file_.get(), array_.name.c_str(), access.get()), &H5Dclose);
    check(dataset_.get() >= 0, "cannot open it");
  }

  void send_elements(const ChildStream::Write& write) const {
    const uint64_t size = size_of(array_.type);
    const uint64_t elements = stored_bytes(array_) / size;
    std::vector<std::byte> buffer(std::min<uint64_t>(elements * size, block_bytes));
    for (uint64_t begin = 0; begin < elements;) {
      const uint64_t end = begin + std::min<uint64_t>(elements - begin, block_bytes / size);
      size_t filled = 0;
      for (const Hyperslab& slab : hyperslabs_of_range(stored_shape_, begin, end)) {
        const std::vector<hsize_t> start(slab.start.begin(), slab.start.end());
        const std::vector<hsize_t> count(slab.count.begin(), slab.count.end());
        hsize_t selected = 1;
        for (const hsize_t length : count) selected *= length;
        const Hdf5Handle memory(H5Screate_simple(1, &selected, nullptr), &H5Sclose);
        check(H5Sselect_hyperslab(space_.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) >= 0 &&
                  H5Dread(dataset_.get(), type_.get(), memory.get(), space_.get(), H5P_DEFAULT,
                          buffer.data() + filled) >= 0,
              "cannot read its elements");
        filled += selected * size;
      }
      write(std::span(buffer).first(filled));
      begin = end;
    }
  }

  std::filesystem::path path_;
  StoredArray array_;
  std::vector<int64_t> stored_shape_;  // shape of the dataset; array_.shape is that of the tensor
  Hdf5Handle file_;
  Hdf5Handle dataset_;
  Hdf5Handle space_;
  Hdf5Handle creation_;
  Hdf5Handle type_;
};

// ---- in the parent, which trusts nothing that a damaged child says ----

StoredArray receive_description(ChildStream& stream, const std::filesystem::path& path) {
  Preamble preamble;
  stream.read(std::as_writable_bytes(std::span(&preamble, 1)));
  if (preamble.rank > max_rank || preamble.name_bytes > max_name_bytes ||
      preamble.type > static_cast<uint64_t>(ElementType::f64)) {
    fail_array(path.string(), "damaged: the library that reads it makes no sense");
  }
  StoredArray array;
  array.name.resize(preamble.name_bytes);
  stream.read(std::as_writable_bytes(std::span(array.name)));
  array.place = place_of(path, array.name);
  array.type = static_cast<ElementType>(preamble.type);
  array.shape.assign(preamble.shape.begin(), preamble.shape.begin() + static_cast<ptrdiff_t>(preamble.rank));
  return array;
}

}  // namespace

LoadedArray load_hdf5(const std::filesystem::path& path, const std::string& name) {
  const InputFile exists(path);
  ChildStream stream(path.string(), [&](const ChildStream::Write& write) { DatasetSource(path, name).send(write); });
  const StoredArray array = receive_description(stream, path);
  return read_stored(array, [&](std::span<std::byte> target) { stream.read(target); });
}

}  // namespace nibble
