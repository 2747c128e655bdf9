#include "trainer/arrays/safetensors_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>

#include "dist/base/error.h"
#include "dist/base/little_endian.h"
#include "dist/base/text.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

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
std::optional<uint64_t> needed_bytes(const SafetensorsEntry& entry, const std::string& location) {
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

SafetensorsEntry parse_entry(const std::string& name, const Json& object, const std::string& location) {
  require(object.is_object() && object.contains("dtype") && object.contains("shape") && object.contains("data_offsets"),
          location, "the header does not give dtype, shape and data_offsets");
  require(object["dtype"].is_string(), location, "the dtype is not a string");
  SafetensorsEntry entry{name, object["dtype"], unsigned_list(object["shape"], location)};
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
std::vector<SafetensorsEntry> parse_header(const InputFile& file, const std::string& text, uint64_t data_bytes) {
  const Json root = parse_json(file, text);
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, object] : root.items()) {
    if (name != safetensors_metadata_key)
      entries.push_back(parse_entry(name, object, location_text(file.name(), name)));
  }
  std::stable_sort(entries.begin(), entries.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t next = 0;
  for (const SafetensorsEntry& entry : entries) {
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

}  // namespace

std::optional<uint64_t> safetensors_element_bytes(std::string_view dtype) {
  const StoredType* const type = find_type(dtype);
  return type == nullptr ? std::nullopt : std::optional(type->bytes);
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  std::array<std::byte, 8> prefix{};
  if (file_.size() < prefix.size()) {
    fail_array(file_.name(), fmt::format("{} bytes are no safetensors file", file_.size()));
  }
  file_.read(0, prefix);
  const auto length = load_little_endian<uint64_t>(prefix, 0);
  if (length > max_safetensors_header) {
    fail_array(file_.name(),
               fmt::format("a header of {} bytes, more than the {} allowed: damaged, or not a safetensors file", length,
                           max_safetensors_header));
  }
  if (length > file_.size() - prefix.size()) {
    fail_array(file_.name(), fmt::format("cut off inside its header of {} bytes", length));
  }
  std::string text(length, '\0');
  file_.read(prefix.size(), std::as_writable_bytes(std::span(text)));
  data_ = prefix.size() + length;
  entries_ = parse_header(file_, text, file_.size() - data_);
}

std::string SafetensorsFile::location(const SafetensorsEntry& entry) const {
  return location_text(file_.name(), entry.name);
}

StoredDType SafetensorsFile::element_type(const SafetensorsEntry& entry) const {
  const StoredType* const type = find_type(entry.dtype);
  if (type != nullptr && type->element) return *type->element;
  fail_array(location(entry),
             fmt::format("elements of type {} are not read, only F16, BF16, F32 and F64", shown(entry.dtype)),
             "convert it to BF16 or F32 before it is saved");
}

void SafetensorsFile::read(const SafetensorsEntry& entry, uint64_t first_byte, std::span<std::byte> target) const {
  NIBBLE_CHECK(first_byte + target.size() <= entry.end - entry.begin, "a tensor is read beyond its end");
  file_.read(data_ + entry.begin + first_byte, target);
}

}  // namespace nibble
