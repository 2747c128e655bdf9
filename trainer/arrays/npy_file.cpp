// Reads NumPy's .npy (data/shards/npy_header.h).
#include <fmt/format.h>

#include <string_view>

#include "data/shards/npy_header.h"
#include "dist/base/file.h"
#include "dist/base/text.h"
#include "trainer/arrays/stored_array.h"

namespace nibble {

namespace {

StoredDType stored_dtype(const std::string& location, std::string_view descr) {
  const std::string convert = "save array.astype(\"<f4\") instead";
  const std::string_view kind = descr.substr(descr.empty() ? 0 : 1);
  const bool is_float = kind == "f2" || kind == "f4" || kind == "f8";
  if (descr.starts_with('>') && is_float) fail_array(location, "the numbers are big-endian", convert);
  if (descr.starts_with('<') && is_float) {
    return kind == "f2" ? StoredDType::f16 : kind == "f4" ? StoredDType::f32 : StoredDType::f64;
  }
  if (kind == "V2") {
    fail_array(location,
               fmt::format("elements of two bytes without a type (descr {}), which may have been BF16", shown(descr)),
               convert + ", or keep BF16 in a .safetensors file");
  }
  fail_array(location, fmt::format("elements of type {} are not read, only FP16, FP32 and FP64", shown(descr)),
             convert);
}

}  // namespace

LoadedArray load_npy(const std::filesystem::path& path) {
  const InputFile file(path);
  const NpyHeader header =
      read_npy_header(file.name(), file.size(), [&](uint64_t at, std::span<std::byte> bytes) { file.read(at, bytes); });
  uint64_t offset = header.data_offset;
  const StoredArray array{file.name(), path.stem().string(), header.shape, stored_dtype(file.name(), header.descr)};
  if (header.fortran_order) {
    fail_array(file.name(), "the array is in Fortran order", "save numpy.ascontiguousarray(array) instead");
  }
  const uint64_t bytes = stored_bytes(array);
  if (bytes != file.size() - offset) {
    fail_array(file.name(), fmt::format("{} bytes follow the header, but an array of shape [{}] has {}",
                                        file.size() - offset, fmt::join(array.shape, ", "), bytes));
  }
  return read_stored(array, [&](std::span<std::byte> target) {
    file.read(offset, target);
    offset += target.size();
  });
}

}  // namespace nibble
