#include "trainer/checkpoint/manifest_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "dist/base/error.h"

namespace nibble {
namespace {

constexpr std::array dtypes{DType::f32, DType::bf16, DType::u8, DType::i32, DType::i64};

}  // namespace

void require(bool good, const std::string& complaint) {
  if (!good) throw Error(ExitCode::bad_data, complaint);
}

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
  return text.size() == 32 && std::all_of(text.begin(), text.end(), digit);
}

uint64_t unsigned_of(const Json& value, const std::string& what) {
  require(value.is_number_unsigned(), fmt::format("{} is not an unsigned integer", what));
  return value.get<uint64_t>();
}

uint64_t unsigned_member(const Json& object, const char* key) {
  return unsigned_of(object.at(key), key);
}

DType dtype_of(const std::string& name) {
  for (const DType dtype : dtypes) {
    if (name_of(dtype) == name) return dtype;
  }
  throw Error(ExitCode::bad_data, fmt::format("unknown dtype {}", name));
}

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
  TensorLayout tensor{.name = object.at("name"), .offset = unsigned_member(object, "offset")};
  require(is_plain_name(tensor.name), "a tensor has an impossible name");
  tensor.shape = parse_shape(object.at("shape"), tensor.name, tensor.count);
  require(tensor.offset % Layout::alignment == 0, fmt::format("tensor {} has an impossible offset", tensor.name));
  require(tensor.offset >= next_offset && !__builtin_add_overflow(tensor.offset, tensor.count, &next_offset),
          fmt::format("tensor {} overlaps another", tensor.name));
  return tensor;
}

Layout layout_of(std::vector<TensorLayout> tensors, uint64_t elements) {
  require(!tensors.empty() && tensors.front().offset == 0, "no tensor begins at element 0");
  require(tensors.back().offset + tensors.back().count <= elements && elements % Layout::alignment == 0,
          fmt::format("{} elements do not hold every tensor", elements));
  std::vector<std::string> names;
  for (const TensorLayout& tensor : tensors) names.push_back(tensor.name);
  std::ranges::sort(names);
  const auto twice = std::ranges::adjacent_find(names);
  if (twice != names.end()) require(false, fmt::format("two tensors are called {}", *twice));
  return {{{.name = "checkpoint", .range = {0, elements}}}, std::move(tensors)};
}

CheckpointInfo::Replicated parse_replicated(const Json& object, DType dtype) {
  CheckpointInfo::Replicated array{object.at("name"), {}, dtype};
  require(is_group_name(array.name) && array.name.find('/') != std::string::npos, "an array has an impossible name");
  uint64_t count = 0;
  array.shape = parse_shape(object.at("shape"), array.name, count);
  return array;
}

std::vector<ManifestFile> parse_files(const Json& files, size_t rank_files) {
  std::vector<ManifestFile> result;
  for (const Json& object : files) {
    ManifestFile file{object.at("name"), {unsigned_member(object, "bytes"), object.at("xxh3_128")}};
    const size_t index = result.size();
    const std::string expected = index == 0   ? "config.yaml"
                                 : index == 1 ? "index.h5"
                                              : rank_file_name(static_cast<int>(index - 2));
    require(file.name == expected, fmt::format("file {} should be {}", index, expected));
    require(is_hash(file.digest.hash), fmt::format("{} has no hash", file.name));
    result.push_back(std::move(file));
  }
  require(rank_files > 0 && result.size() == rank_files + 2, "the list of files is not complete");
  return result;
}

}  // namespace nibble
