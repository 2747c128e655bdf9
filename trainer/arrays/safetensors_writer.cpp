#include "trainer/arrays/safetensors_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <system_error>

#include "dist/base/error.h"
#include "dist/base/little_endian.h"
#include "dist/base/text.h"
#include "dist/base/utf8.h"
#include "trainer/arrays/array_file.h"
#include "trainer/arrays/safetensors_file.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

uint64_t element_bytes(const std::string& dtype) {
  const std::optional<uint64_t> bytes = safetensors_element_bytes(dtype);
  NIBBLE_CHECK(bytes, "no safetensors dtype: " + dtype);
  return *bytes;
}

std::string header_text(const std::filesystem::path& path, const std::vector<SafetensorsTensor>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  Json root = Json::object();
  if (!metadata.empty()) root[std::string(safetensors_metadata_key)] = metadata;
  std::set<std::string_view> names{safetensors_metadata_key, ""};
  uint64_t offset = 0;
  for (const SafetensorsTensor& tensor : tensors) {
    NIBBLE_CHECK(names.insert(tensor.name).second,
                 "a safetensors name that is reserved or comes twice: " + tensor.name);
    if (!is_utf8(tensor.name)) {
      throw Error(ExitCode::bad_data, fmt::format("{}: the name {} is not UTF-8", path.string(), shown(tensor.name)),
                  "rename the file or dataset that it comes from");
    }
    const uint64_t end = offset + tensor.bytes();
    root[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = root.dump(-1, ' ', false, Json::error_handler_t::replace);
  text.resize(round_up<size_t>(text.size(), 8), ' ');
  NIBBLE_CHECK(text.size() <= max_safetensors_header, "too many tensors for one safetensors file");
  return text;
}

}  // namespace

uint64_t SafetensorsTensor::bytes() const {
  uint64_t bytes = element_bytes(dtype);
  for (const int64_t extent : shape) bytes = checked_multiply(bytes, narrow<uint64_t>(extent));
  return bytes;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, const std::vector<SafetensorsTensor>& tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path) {
  const std::string header = header_text(path, tensors, metadata);
  std::array<std::byte, 8> prefix{};
  store_little_endian<uint64_t>(prefix, 0, header.size());
  end_ = prefix.size() + header.size();
  for (const SafetensorsTensor& tensor : tensors) end_ += tensor.bytes();
  write(prefix);
  write(std::as_bytes(std::span(header)));
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  NIBBLE_CHECK(bytes.size() <= end_ - next_, "more bytes than the tensors have");
  file_.write_at(next_, bytes);
  next_ += bytes.size();
}

void SafetensorsWriter::publish() {
  NIBBLE_CHECK(next_ == end_, "not all tensors were written");
  file_.publish();
}

// Larger elements come first, so that every array is aligned to its element size.
void save_safetensors(const std::filesystem::path& path, const std::vector<NamedArray>& arrays,
                      const std::map<std::string, std::string>& metadata, bool overwrite) {
  std::vector<const NamedArray*> order;
  order.reserve(arrays.size());
  for (const NamedArray& array : arrays) order.push_back(&array);
  std::stable_sort(order.begin(), order.end(), [](const NamedArray* a, const NamedArray* b) {
    return element_bytes(a->dtype) > element_bytes(b->dtype);
  });
  std::vector<SafetensorsTensor> tensors;
  tensors.reserve(order.size());
  for (const NamedArray* array : order) {
    tensors.push_back({array->name, array->dtype, array->shape});
    NIBBLE_CHECK(tensors.back().bytes() == array->bytes && (array->bytes == 0 || array->data != nullptr),
                 "shape and bytes differ: " + array->name);
  }
  std::error_code ignored;
  if (!overwrite && std::filesystem::exists(std::filesystem::symlink_status(path, ignored))) {
    throw Error(ExitCode::cannot_create, fmt::format("{}: exists already", path.string()),
                "give another name, or allow it to be overwritten");
  }
  SafetensorsWriter writer(path, tensors, metadata);
  for (const NamedArray* array : order) writer.write({static_cast<const std::byte*>(array->data), array->bytes});
  writer.publish();
}

}  // namespace nibble
