#include "trainer/checkpoint/manifest.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "dist/base/error.h"
#include "dist/base/hash.h"
#include "trainer/checkpoint/hdf5_file.h"

namespace nibble {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view format_name = "nibble checkpoint";
constexpr uint64_t format_version = 1;
constexpr size_t hash_digits = 32;
constexpr std::string_view hash_member = ",\n  \"hash\": \"";
constexpr std::string_view text_end = "\"\n}\n";
constexpr std::array dtypes{DType::f32, DType::bf16, DType::u8, DType::i32, DType::i64};

void require(bool good, const std::string& complaint) {
  if (!good) throw Error(ExitCode::bad_data, complaint);
}

// Returns whether a name may become an HDF5 link: it has no separators and does not start with a dot.
bool is_plain_name(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
  };
  return !name.empty() && name.size() <= 256 && name.front() != '.' && std::all_of(name.begin(), name.end(), allowed);
}

bool is_group_name(std::string_view name) {
  for (;;) {
    const size_t slash = name.find('/');
    if (!is_plain_name(name.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    name.remove_prefix(slash + 1);
  }
}

bool is_hash(std::string_view text) {
  const auto digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return text.size() == hash_digits && std::all_of(text.begin(), text.end(), digit);
}

uint64_t unsigned_of(const Json& object, const char* key) {
  const Json& value = object.at(key);
  require(value.is_number_unsigned(), fmt::format("{} is not an unsigned integer", key));
  return value.get<uint64_t>();
}

DType dtype_of(const std::string& name) {
  for (const DType dtype : dtypes) {
    if (name_of(dtype) == name) return dtype;
  }
  throw Error(ExitCode::bad_data, fmt::format("unknown dtype {}", name));
}

// Reads the shape of the array `name` and computes the number of its elements.
std::vector<int64_t> parse_shape(const Json& extents, const std::string& name, uint64_t& count) {
  std::vector<int64_t> shape;
  count = 1;
  for (const Json& extent : extents) {
    require(extent.is_number_unsigned() && extent.get<uint64_t>() > 0 && extent.get<uint64_t>() <= INT64_MAX &&
                !__builtin_mul_overflow(count, extent.get<uint64_t>(), &count),
            fmt::format("{} has an impossible shape", name));
    shape.push_back(extent.get<int64_t>());
  }
  require(!shape.empty() && shape.size() <= Tensor::max_rank, fmt::format("{} has an impossible shape", name));
  return shape;
}

TensorLayout parse_tensor(const Json& object, uint64_t& next_offset) {
  TensorLayout tensor{.name = object.at("name"), .offset = unsigned_of(object, "offset")};
  require(is_plain_name(tensor.name), "a tensor has an impossible name");
  tensor.shape = parse_shape(object.at("shape"), tensor.name, tensor.count);
  require(tensor.offset % Layout::alignment == 0, fmt::format("tensor {} has an impossible offset", tensor.name));
  require(tensor.offset >= next_offset && !__builtin_add_overflow(tensor.offset, tensor.count, &next_offset),
          fmt::format("tensor {} overlaps another", tensor.name));
  return tensor;
}

// Reads the list of replicated arrays. Manifests of older programs do not have it, or not the arrays' dtype, which is
// then FP32.
void parse_replicated(const Json& root, CheckpointInfo& info) {
  if (!root.contains("replicated")) return;
  for (const Json& object : root.at("replicated")) {
    CheckpointInfo::Replicated array{object.at("name"), {}};
    if (object.contains("dtype")) array.dtype = dtype_of(object.at("dtype"));
    require(is_group_name(array.name) && array.name.find('/') != std::string::npos, "an array has an impossible name");
    uint64_t count = 0;
    array.shape = parse_shape(object.at("shape"), array.name, count);
    info.replicated.push_back(std::move(array));
  }
}

// Returns the number of elements of the logical order.
uint64_t parse_shards(const Json& shards, CheckpointInfo& info) {
  uint64_t next = 0;
  for (const Json& object : shards) {
    const Range range{unsigned_of(object, "begin"), unsigned_of(object, "end")};
    require(range.begin == next && range.end >= range.begin, "shards do not follow each other");
    info.rank_files.push_back({rank_file_name(static_cast<int>(info.rank_files.size())), {}});
    if (!range.empty()) info.rank_files.back().ranges.push_back(range);
    next = range.end;
  }
  info.ranks = static_cast<int>(info.rank_files.size());
  require(info.ranks > 0, "no shards");
  return next;
}

// Weights have one dtype, and matrices are not stacked.
Layout parse_layout(const Json& root, uint64_t elements, const ArrayInfo* weights) {
  std::vector<TensorLayout> tensors;
  uint64_t next_offset = 0;
  for (const Json& object : root.at("tensors")) {
    tensors.push_back(parse_tensor(object, next_offset));
    tensors.back().tensor_id = static_cast<uint32_t>(tensors.size() - 1);
    if (weights != nullptr) tensors.back().width = static_cast<uint8_t>(size_of(weights->dtype));
  }
  require(!tensors.empty() && tensors.front().offset == 0, "no tensor begins at element 0");
  require(next_offset <= elements && elements % Layout::alignment == 0, "shards do not hold every tensor");
  return {{{.name = "checkpoint", .range = {0, elements}}}, std::move(tensors)};
}

void parse_files(const Json& files, Manifest& manifest) {
  for (const Json& object : files) {
    ManifestFile file{object.at("name"), {unsigned_of(object, "bytes"), object.at("xxh3_128")}};
    const size_t index = manifest.files.size();
    const std::string expected = index == 0   ? "config.yaml"
                                 : index == 1 ? "index.h5"
                                              : rank_file_name(static_cast<int>(index - 2));
    require(file.name == expected, fmt::format("file {} should be {}", index, expected));
    require(is_hash(file.digest.hash), fmt::format("{} has no hash", file.name));
    manifest.files.push_back(std::move(file));
  }
  require(manifest.files.size() == manifest.info.rank_files.size() + 2, "the list of files is not complete");
}

Manifest parse_members(const Json& root) {
  const Json& format = root.at("format");
  require(format.at("name") == format_name, "this is not a nibble checkpoint");
  require(unsigned_of(format, "version") == format_version,
          fmt::format("format version {} is not {}: written by another version of nibble ({})",
                      unsigned_of(format, "version"), format_version, root.at("nibble").get<std::string>()));
  Manifest manifest;
  CheckpointInfo& info = manifest.info;
  info.step = unsigned_of(root, "step");
  info.tokens = unsigned_of(root, "tokens");
  info.seed = unsigned_of(root, "seed");
  for (const auto& [name, value] : root.items()) {
    const bool own = name == "step" || name == "tokens" || name == "seed";
    if (value.is_number() && !own) info.numbers.push_back({name, unsigned_of(root, name.c_str())});
  }
  info.data_fingerprint = root.at("data_fingerprint");
  info.nibble_version = root.at("nibble");
  for (const Json& object : root.at("groups")) {
    info.arrays.push_back({.name = object.at("name"), .dtype = dtype_of(object.at("dtype"))});
    require(is_group_name(info.arrays.back().name), "a group has an impossible name");
  }
  parse_replicated(root, info);
  const uint64_t elements = parse_shards(root.at("shards"), info);
  info.layout = parse_layout(root, elements, info.find_array(weights_array_name));
  parse_files(root.at("files"), manifest);
  return manifest;
}

}  // namespace

std::string rank_file_name(int rank) {
  return fmt::format("rank-{:05}.h5", rank);
}

std::string manifest_text(const Manifest& manifest) {
  const CheckpointInfo& info = manifest.info;
  Json root;
  root["format"] = {{"name", format_name}, {"version", format_version}};
  root["nibble"] = info.nibble_version;
  root["libraries"] = {
      {"hdf5", hdf5_version()}, {"xxhash", fmt::format("{}", XXH_versionNumber())}, {"compiler", __VERSION__}};
  root["step"] = info.step;
  root["tokens"] = info.tokens;
  root["seed"] = info.seed;
  for (const NamedNumber& number : info.numbers) {
    NIBBLE_CHECK(is_plain_name(number.name) && !root.contains(number.name), number.name);
    root[number.name] = number.value;
  }
  root["data_fingerprint"] = info.data_fingerprint;
  root["groups"] = Json::array();
  for (const ArrayInfo& array : info.arrays)
    root["groups"].push_back({{"name", array.name}, {"dtype", name_of(array.dtype)}});
  root["tensors"] = Json::array();
  for (const TensorLayout& tensor : info.layout.tensors()) {
    NIBBLE_CHECK(is_plain_name(tensor.name), tensor.name);
    root["tensors"].push_back({{"name", tensor.name}, {"shape", tensor.shape}, {"offset", tensor.offset}});
  }
  if (!info.replicated.empty()) root["replicated"] = Json::array();
  for (const auto& array : info.replicated) {
    NIBBLE_CHECK(is_group_name(array.name), array.name);
    root["replicated"].push_back({{"name", array.name}, {"dtype", name_of(array.dtype)}, {"shape", array.shape}});
  }
  root["shards"] = Json::array();
  uint64_t next = 0;
  for (const auto& file : info.rank_files) {
    NIBBLE_CHECK(file.ranges.size() <= 1, "a rank holds one range");
    const uint64_t begin = std::exchange(next, file.ranges.empty() ? next : file.ranges.front().end);
    root["shards"].push_back({{"begin", begin}, {"end", next}});
  }
  root["files"] = Json::array();
  for (const ManifestFile& file : manifest.files) {
    root["files"].push_back({{"name", file.name}, {"bytes", file.digest.bytes}, {"xxh3_128", file.digest.hash}});
  }
  std::string text = root.dump(2);
  text.resize(text.size() - 2);  // removes "\n}", which comes again after the hash
  const std::string hash = to_hex(hash128(text));
  return text.append(hash_member).append(hash).append(text_end);
}

Manifest parse_manifest(const std::string& text, const std::filesystem::path& path) {
  const size_t tail = hash_member.size() + hash_digits + text_end.size();
  const size_t body = text.size() < tail ? 0 : text.size() - tail;
  const std::string hash = to_hex(hash128(std::string_view(text).substr(0, body)));
  const std::string expected_tail = std::string(hash_member) + hash + std::string(text_end);
  if (text.size() < tail || text.substr(body) != expected_tail) {
    throw Error(ExitCode::bad_data, fmt::format("{} is damaged: its text hashes to {}, which is not what it ends with",
                                                path.string(), hash));
  }
  try {
    return parse_members(Json::parse(text));
  } catch (const nlohmann::json::exception& error) {
    throw Error(ExitCode::bad_data, fmt::format("{} is not a manifest: {}", path.string(), error.what()));
  } catch (const Error& error) {
    throw Error(ExitCode::bad_data, fmt::format("{} is not a manifest: {}", path.string(), error.what()));
  }
}

std::string damage_of(const std::filesystem::path& directory, const ManifestFile& file) {
  const std::filesystem::path path = directory / file.name;
  try {
    const FileDigest found = digest_file(path);
    if (found.bytes != file.digest.bytes) {
      return fmt::format("{} has {} bytes, expected {}", path.string(), found.bytes, file.digest.bytes);
    }
    if (found.hash != file.digest.hash) {
      return fmt::format("{} has hash {}, expected {}", path.string(), found.hash, file.digest.hash);
    }
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace nibble
