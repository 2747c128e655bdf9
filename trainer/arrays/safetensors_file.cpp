// Reads and writes safetensors. A file holds the header's length (8 bytes), the header (JSON: name -> dtype, shape and
// range of bytes), and the data, which the ranges cover without gap or overlap.
// https://github.com/huggingface/safetensors, "Format".
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <system_error>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/little_endian.h"
#include "dist/base/text.h"
#include "dist/base/utf8.h"
#include "trainer/arrays/stored_array.h"

namespace nibble {

namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t max_header_bytes = 100'000'000;  // the limit of the format's own library
constexpr const char* metadata_key = "__metadata__";
constexpr int max_depth = 3;  // {name: {"shape": [...

struct StoredType {
  std::string_view name;
  uint64_t bytes;
  std::optional<StoredDType> element;  // empty for dtypes that load_array() cannot read
};
constexpr std::array<StoredType, 15> stored_types{{{"BOOL", 1, {}},
                                                   {"U8", 1, {}},
                                                   {"I8", 1, {}},
                                                   {"F8_E4M3", 1, {}},
                                                   {"F8_E5M2", 1, {}},
                                                   {"I16", 2, {}},
                                                   {"U16", 2, {}},
                                                   {"F16", 2, StoredDType::f16},
                                                   {"BF16", 2, StoredDType::bf16},
                                                   {"I32", 4, {}},
                                                   {"U32", 4, {}},
                                                   {"F32", 4, StoredDType::f32},
                                                   {"I64", 8, {}},
                                                   {"U64", 8, {}},
                                                   {"F64", 8, StoredDType::f64}}};

const StoredType* find_type(std::string_view name) {
  const auto* const found =
      std::find_if(stored_types.begin(), stored_types.end(), [&](const StoredType& type) { return type.name == name; });
  return found == stored_types.end() ? nullptr : found;
}

struct HeaderEntry {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  uint64_t begin = 0;  // bytes in the data
  uint64_t end = 0;
};

// Throws the error of a damaged file unless `good` is true.
void require(bool good, const std::string& location, std::string_view complaint) {
  if (!good) fail_array(location, complaint);
}

std::vector<uint64_t> unsigned_list(const Json& list, const std::string& location) {
  require(list.is_array(), location, "a member of the header is not a list");
  std::vector<uint64_t> result;
  for (const Json& value : list) {
    require(value.is_number_unsigned(), location, "a size or offset in the header is not an unsigned integer");
    result.push_back(value.get<uint64_t>());
  }
  return result;
}

// Returns the number of bytes that shape and dtype need, or nothing if the dtype is unknown.
std::optional<uint64_t> needed_bytes(const HeaderEntry& entry, const std::string& location) {
  const StoredType* const type = find_type(entry.dtype);
  if (type == nullptr) return std::nullopt;
  const bool is_empty = std::find(entry.shape.begin(), entry.shape.end(), 0U) != entry.shape.end();
  uint64_t bytes = is_empty ? 0 : type->bytes;
  for (const uint64_t extent : entry.shape) {
    require(!__builtin_mul_overflow(bytes, extent, &bytes), location,
            fmt::format("a shape of [{}] is impossible", fmt::join(entry.shape, ", ")));
  }
  return bytes;
}

HeaderEntry parse_entry(const std::string& name, const Json& object, const std::string& location) {
  require(object.is_object() && object.contains("dtype") && object.contains("shape") && object.contains("data_offsets"),
          location, "the header does not give dtype, shape and data_offsets");
  require(object["dtype"].is_string(), location, "the dtype is not a string");
  HeaderEntry entry{name, object["dtype"], unsigned_list(object["shape"], location)};
  const std::vector<uint64_t> offsets = unsigned_list(object["data_offsets"], location);
  require(offsets.size() == 2 && offsets[0] <= offsets[1], location, "data_offsets are not a begin and an end");
  entry.begin = offsets[0];
  entry.end = offsets[1];
  const std::optional<uint64_t> needed = needed_bytes(entry, location);
  require(!needed || *needed == entry.end - entry.begin, location,
          fmt::format("{} bytes of data, but {} of shape [{}] take {}", entry.end - entry.begin, entry.dtype,
                      fmt::join(entry.shape, ", "), needed.value_or(0)));
  return entry;
}

// Parses the header. Refuses deep nesting and a name that comes twice, which the JSON library would accept silently.
Json parse_json(const InputFile& file, const std::string& text) {
  std::set<std::string> names;
  const auto inspect = [&](int depth, Json::parse_event_t event, const Json& value) {
    const bool opens = event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start;
    require(!opens || depth < max_depth, file.name(), "the header is nested too deeply");
    require(event != Json::parse_event_t::key || depth != 1 || names.insert(value.get<std::string>()).second,
            file.name(), "a name comes twice in the header");
    return true;
  };
  try {
    Json root = Json::parse(text, inspect);
    require(root.is_object(), file.name(), "the header is not a JSON object");
    return root;
  } catch (const nlohmann::json::exception& error) {
    fail_array(file.name(), fmt::format("the header is not JSON: {}", shown(error.what())));
  }
}

// Returns all tensors in the order of their data, which must cover `data_bytes` bytes without gap or overlap.
std::vector<HeaderEntry> parse_header(const InputFile& file, const std::string& text, uint64_t data_bytes) {
  const Json root = parse_json(file, text);
  std::vector<HeaderEntry> entries;
  for (const auto& [name, object] : root.items()) {
    if (name != metadata_key) entries.push_back(parse_entry(name, object, location_text(file.name(), name)));
  }
  std::stable_sort(entries.begin(), entries.end(), [](const HeaderEntry& a, const HeaderEntry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t next = 0;
  for (const HeaderEntry& entry : entries) {
    const std::string location = location_text(file.name(), entry.name);
    require(entry.begin >= next, location, "its data overlaps another tensor's");
    require(entry.begin == next, location,
            fmt::format("{} bytes before its data belong to no tensor", entry.begin - next));
    require(entry.end <= data_bytes, location,
            fmt::format("its data ends at byte {}, but the file has {} bytes of data", entry.end, data_bytes));
    next = entry.end;
  }
  require(next == data_bytes, file.name(), fmt::format("{} bytes at the end belong to no tensor", data_bytes - next));
  return entries;
}

const HeaderEntry& choose(const std::vector<HeaderEntry>& entries, const std::string& name, const InputFile& file) {
  if (entries.empty()) fail_array(file.name(), "the file holds no tensor", "check the path");
  std::vector<std::string> names;
  for (const HeaderEntry& entry : entries) {
    if (entry.name == name || (name.empty() && entries.size() == 1)) return entry;
    names.push_back(entry.name);
  }
  const std::string list = listed(names, names.size());
  if (name.empty()) {
    throw Error(ExitCode::usage, fmt::format("{}: holds {} tensors: {}", file.name(), names.size(), list),
                fmt::format("name one: {}:NAME", file.name()));
  }
  throw Error(ExitCode::missing_input,
              fmt::format("{}: there is none; the file holds {}", location_text(file.name(), name), list),
              "check the tensor's name");
}

StoredDType stored_dtype(const HeaderEntry& entry, const std::string& location) {
  const StoredType* const type = find_type(entry.dtype);
  if (type != nullptr && type->element) return *type->element;
  fail_array(location, fmt::format("elements of type {} are not read, only F16, BF16, F32 and F64", shown(entry.dtype)),
             "convert it to BF16 or F32 before it is saved");
}

// Returns the arrays in the order of their data: larger elements first, so that every array is aligned to its element
// size.
std::vector<const NamedArray*> data_order(const std::vector<NamedArray>& arrays) {
  std::set<std::string_view> names{metadata_key, ""};
  std::vector<const NamedArray*> order;
  for (const NamedArray& array : arrays) {
    const StoredType* const type = find_type(array.dtype);
    NIBBLE_CHECK(type != nullptr, "no safetensors dtype: " + array.dtype);
    NIBBLE_CHECK(names.insert(array.name).second, "a safetensors name that is reserved or comes twice: " + array.name);
    uint64_t bytes = type->bytes;
    for (const int64_t extent : array.shape) bytes = checked_multiply(bytes, narrow<uint64_t>(extent));
    NIBBLE_CHECK(bytes == array.bytes && (bytes == 0 || array.data != nullptr),
                 "shape and bytes differ: " + array.name);
    order.push_back(&array);
  }
  std::stable_sort(order.begin(), order.end(), [](const NamedArray* a, const NamedArray* b) {
    return find_type(a->dtype)->bytes > find_type(b->dtype)->bytes;
  });
  return order;
}

std::string header_text(const std::filesystem::path& path, const std::vector<const NamedArray*>& order,
                        const std::map<std::string, std::string>& metadata) {
  Json root = Json::object();
  if (!metadata.empty()) root[metadata_key] = metadata;
  uint64_t offset = 0;
  for (const NamedArray* array : order) {
    if (!is_utf8(array->name)) {
      throw Error(ExitCode::bad_data, fmt::format("{}: the name {} is not UTF-8", path.string(), shown(array->name)),
                  "rename the file or dataset that it comes from");
    }
    Json& entry = root[array->name];
    entry["dtype"] = array->dtype;
    entry["shape"] = array->shape;
    entry["data_offsets"] = {offset, offset + array->bytes};
    offset += array->bytes;
  }
  std::string text = root.dump(-1, ' ', false, Json::error_handler_t::replace);
  text.resize(round_up<size_t>(text.size(), 8), ' ');
  NIBBLE_CHECK(text.size() <= max_header_bytes, "too many tensors for one safetensors file");
  return text;
}

}  // namespace

LoadedArray load_safetensors(const std::filesystem::path& path, const std::string& name) {
  const InputFile file(path);
  std::array<std::byte, 8> prefix{};
  if (file.size() < prefix.size())
    fail_array(file.name(), fmt::format("{} bytes are no safetensors file", file.size()));
  file.read(0, prefix);
  const auto length = load_little_endian<uint64_t>(prefix, 0);
  if (length > max_header_bytes) {
    fail_array(file.name(),
               fmt::format("a header of {} bytes, more than the {} allowed: damaged, or not a safetensors file", length,
                           max_header_bytes));
  }
  if (length > file.size() - prefix.size()) {
    fail_array(file.name(), fmt::format("cut off inside its header of {} bytes", length));
  }
  std::string text(length, '\0');
  file.read(prefix.size(), std::as_writable_bytes(std::span(text)));
  const uint64_t data = prefix.size() + length;
  const std::vector<HeaderEntry> entries = parse_header(file, text, file.size() - data);
  const HeaderEntry& entry = choose(entries, name, file);
  const std::string location = location_text(path, entry.name);
  uint64_t offset = data + entry.begin;
  return read_stored({location, entry.name, entry.shape, stored_dtype(entry, location)},
                     [&](std::span<std::byte> target) {
                       file.read(offset, target);
                       offset += target.size();
                     });
}

void save_safetensors(const std::filesystem::path& path, const std::vector<NamedArray>& arrays,
                      const std::map<std::string, std::string>& metadata, bool overwrite) {
  const std::vector<const NamedArray*> order = data_order(arrays);
  const std::string header = header_text(path, order, metadata);
  std::error_code ignored;
  if (!overwrite && std::filesystem::exists(std::filesystem::symlink_status(path, ignored))) {
    throw Error(ExitCode::cannot_create, fmt::format("{}: exists already", path.string()),
                "give another name, or allow it to be overwritten");
  }
  OutputFile file(path);
  std::array<std::byte, 8> prefix{};
  store_little_endian<uint64_t>(prefix, 0, header.size());
  file.write_at(0, prefix);
  file.write_at(prefix.size(), std::as_bytes(std::span(header)));
  uint64_t offset = prefix.size() + header.size();
  for (const NamedArray* array : order) {
    file.write_at(offset, {static_cast<const std::byte*>(array->data), array->bytes});
    offset += array->bytes;
  }
  file.publish();
}

}  // namespace nibble
