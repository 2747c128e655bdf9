#include "trainer/checkpoint/manifest.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>

#include "dist/base/error.h"
#include "dist/base/hash.h"
#include "trainer/checkpoint/hdf5_file.h"
#include "trainer/checkpoint/manifest_json.h"

namespace nibble {

namespace {

constexpr std::string_view format_name = "nibble checkpoint";
constexpr uint64_t format_version = 2;
constexpr size_t hash_digits = 32;
constexpr std::string_view hash_member = ",\n  \"hash\": \"";
constexpr std::string_view text_end = "\"\n}\n";

constexpr std::array own_objects{"format", "libraries", "data", "parallel"};

// All numbers of an object that the format itself does not name were saved by what a run remembers.
void parse_numbers(const Json& root, CheckpointInfo& info) {
  for (const auto& [group, object] : root.items()) {
    if (!object.is_object() || std::ranges::find(own_objects, group) != own_objects.end()) continue;
    for (const auto& [name, value] : object.items()) {
      const std::string full_name = fmt::format("{}/{}", group, name);
      if (value.is_number()) info.numbers.push_back({full_name, unsigned_of(value, full_name)});
    }
  }
}

void add_numbers(const CheckpointInfo& info, Json& root) {
  for (const NamedNumber& number : info.numbers) {
    const size_t slash = number.name.find('/');
    NIBBLE_CHECK(is_group_name(number.name) && slash != std::string::npos, number.name);
    const std::string group = number.name.substr(0, slash);
    NIBBLE_CHECK(!root.contains(group) || root[group].is_object(), number.name);
    root[group][number.name.substr(slash + 1)] = number.value;
  }
}

// Reads a list of ranges [begin, end), which must be ascending and apart from each other.
std::vector<Range> parse_ranges(const Json& list, const std::string& what) {
  require(list.is_array(), fmt::format("{} are no list", what));
  std::vector<Range> ranges;
  for (const Json& pair : list) {
    require(pair.is_array() && pair.size() == 2, fmt::format("{} are not pairs", what));
    const Range range{unsigned_of(pair[0], what), unsigned_of(pair[1], what)};
    require(!range.empty() && (ranges.empty() || ranges.back().end < range.begin),
            fmt::format("{} are not ascending and apart from each other", what));
    ranges.push_back(range);
  }
  return ranges;
}

uint64_t parse_identity(const std::string& digits) {
  uint64_t identity = 0;
  const char* const end = digits.data() + digits.size();
  const auto result = std::from_chars(digits.data(), end, identity, 16);
  require(digits.size() == 16 && result.ec == std::errc() && result.ptr == end,
          fmt::format("{} is not a shard's identity of 16 digits", digits));
  return identity;
}

// Returns where a run stands in a part; an empty position if the manifest does not say.
DataPosition parse_position(const Json& part) {
  DataPosition position;
  if (!part.contains("lengths")) return position;
  position.across_shards = part.at("across_shards");
  position.epoch = unsigned_member(part, "epoch");
  position.taken = unsigned_member(part, "taken_in_epoch");
  for (const Json& length : part.at("lengths")) {
    const uint64_t value = unsigned_of(length, "lengths");
    require(value > 0 && (position.lengths.empty() || position.lengths.back() % value == 0),
            "sequence lengths of a part of the data do not divide each other");
    position.lengths.push_back(value);
  }
  require(!position.lengths.empty(), "a part of the data has no sequence length");
  for (const std::string digits : part.at("shards")) position.shards.push_back(parse_identity(digits));
  return position;
}

void parse_data(const Json& root, DataState& data) {
  const Json& object = root.at("data");
  data.next_sample = unsigned_member(root, "next_sample");
  data.tokenizer = root.at("tokenizer");
  require(is_hash(data.tokenizer), "tokenizer is not a hash of 32 digits");
  data.fingerprint = object.at("fingerprint");
  data.sequence_length = unsigned_member(object, "sequence_length");
  require(data.sequence_length > 0, "sequence_length is 0");
  uint64_t taken = 0;
  for (const Json& object_of_part : object.at("parts")) {
    DataPart part{.name = object_of_part.at("name"),
                  .weight = object_of_part.at("weight"),
                  .windows = unsigned_member(object_of_part, "windows"),
                  .taken = unsigned_member(object_of_part, "taken"),
                  .tokens = object_of_part.contains("tokens") ? unsigned_member(object_of_part, "tokens") : 0,
                  .used = object_of_part.value("used", true),
                  .position = parse_position(object_of_part)};
    // Manifests that do not say it have one part at a time.
    if (!object_of_part.contains("tokens")) part.tokens = part.taken * data.sequence_length;
    require(std::isfinite(part.weight) && part.weight > 0, "a part of the data has no weight");
    require(!__builtin_add_overflow(taken, part.taken, &taken), "taken samples overflow");
    data.parts.push_back(std::move(part));
  }
  require(taken == data.next_sample,
          fmt::format("the parts of the data have {} samples taken, not {}", taken, data.next_sample));
}

// Reads the tensors, whose weights have `dtype` unless they say another.
Layout parse_layout(const Json& root, DType dtype) {
  std::vector<TensorLayout> tensors;
  uint64_t next_offset = 0;
  uint64_t next_id = 0;
  for (const Json& object : root.at("tensors")) {
    TensorLayout tensor = parse_tensor(object, next_offset);
    const uint64_t id = unsigned_member(object, "id");
    const uint64_t matrices = object.contains("matrices") ? unsigned_member(object, "matrices") : 1;
    require(id >= next_id && id <= UINT32_MAX && matrices > 0 && matrices <= UINT32_MAX - id,
            fmt::format("tensor {} has an impossible id", tensor.name));
    const bool stack = tensor.shape.size() == 3 && tensor.shape[0] == static_cast<int64_t>(matrices) &&
                       tensor.count / matrices % Layout::alignment == 0;
    require(matrices == 1 || stack, fmt::format("tensor {} is no stack of {} matrices", tensor.name, matrices));
    const DType own = object.contains("dtype") ? dtype_of(object.at("dtype")) : dtype;
    require(own == DType::bf16 || own == DType::f32, fmt::format("weights of {} have another dtype", tensor.name));
    tensor.tensor_id = static_cast<uint32_t>(id);
    tensor.matrices = static_cast<uint32_t>(matrices);
    tensor.width = static_cast<uint8_t>(size_of(own));
    next_id = id + matrices;
    tensors.push_back(std::move(tensor));
  }
  return layout_of(std::move(tensors), unsigned_member(root, "elements"));
}

ArrayInfo parse_array(const Json& object) {
  ArrayInfo array{.name = object.at("name"), .dtype = dtype_of(object.at("dtype"))};
  require(is_group_name(array.name), "an array has an impossible name");
  if (object.contains("elements_a_value")) array.elements_a_value = unsigned_member(object, "elements_a_value");
  require(array.elements_a_value > 0, fmt::format("{} has an impossible elements_a_value", array.name));
  if (!object.contains("tensors")) return array;
  array.tensors = parse_ranges(object.at("tensors"), fmt::format("tensors of {}", array.name));
  require(!array.tensors.empty(), fmt::format("{} is of no tensor", array.name));
  return array;
}

// Every range of ids must begin and end with a tensor's.
void check_tensors_of(const ArrayInfo& array, const Layout& layout) {
  for (const Range& ids : array.tensors) {
    const auto begins = [&](const TensorLayout& tensor) { return tensor.tensor_id == ids.begin; };
    const auto ends = [&](const TensorLayout& tensor) {
      return uint64_t{tensor.tensor_id} + tensor.matrices == ids.end;
    };
    require(std::ranges::any_of(layout.tensors(), begins) && std::ranges::any_of(layout.tensors(), ends),
            fmt::format("{} is of tensors [{}, {}), which do not begin and end there", array.name, ids.begin, ids.end));
  }
}

void parse_arrays(const Json& root, CheckpointInfo& info) {
  for (const Json& object : root.at("arrays")) {
    ArrayInfo array = parse_array(object);
    require(info.find_array(array.name) == nullptr, fmt::format("two arrays are called {}", array.name));
    info.arrays.push_back(std::move(array));
  }
  const ArrayInfo* const weights = info.find_array(weights_array_name);
  require(weights != nullptr && weights->elements_a_value == 1 && weights->tensors.empty(),
          "there are no weights of all tensors");
  info.layout = parse_layout(root, weights->dtype);
  for (const ArrayInfo& array : info.arrays) check_tensors_of(array, info.layout);
  for (const Json& object : root.at("optimizers")) {
    OptimizerInfo optimizer{.name = object.at("name"), .state = object.at("state")};
    for (const std::string& name : optimizer.state) {
      require(info.find_array(std::string(optimizer_prefix) + name) != nullptr,
              fmt::format("there is no array {}{} of optimizer {}", optimizer_prefix, name, optimizer.name));
    }
    info.optimizers.push_back(std::move(optimizer));
  }
  for (const Json& object : root.at("replicated")) {
    info.replicated.push_back(parse_replicated(object, dtype_of(object.at("dtype"))));
  }
}

// The ranges of all files together must be all elements, each once, and no range may end inside the elements of one
// value: then the files have every value of every array once.
void check_ranges(const CheckpointInfo& info) {
  std::vector<Range> ranges;
  for (const auto& file : info.rank_files) ranges.insert(ranges.end(), file.ranges.begin(), file.ranges.end());
  std::ranges::sort(ranges, {}, &Range::begin);
  uint64_t next = 0;
  for (const Range& range : ranges) {
    require(range.begin >= next, fmt::format("two rank files have element {}", range.begin));
    require(range.begin == next, fmt::format("no rank file has element {}", next));
    next = range.end;
    for (const ArrayInfo& array : info.arrays) {
      for_each_part(info.layout.tensors(), {range.end - 1, range.end}, [&](size_t index, Range) {
        const TensorLayout& tensor = info.layout.tensors()[index];
        const uint64_t cut = range.end - tensor.offset;
        require(!array.covers(tensor) || cut == tensor.count || cut % array.elements_a_value == 0,
                fmt::format("a rank file ends inside a value of {} of {}", array.name, tensor.name));
      });
    }
  }
  require(next == info.layout.elements(),
          fmt::format("the rank files have {} elements, not {}", next, info.layout.elements()));
}

void parse_rank_files(const Json& files, Manifest& manifest) {
  CheckpointInfo& info = manifest.info;
  manifest.files = parse_files(files, files.size() < 2 ? 0 : files.size() - 2);
  for (size_t i = 2; i < manifest.files.size(); ++i) {
    const std::string& name = manifest.files[i].name;
    info.rank_files.push_back({name, parse_ranges(files[i].at("ranges"), fmt::format("ranges of {}", name))});
  }
  require(static_cast<uint64_t>(info.ranks) == info.rank_files.size(), "each rank has a file");
  check_ranges(info);
}

// Words name what a reader must know to read the checkpoint right. This reader knows all of version 2 and no word.
// A run of several parts at a time is not understood by versions that know one.
constexpr std::string_view mixture_word = "mixture";

bool is_mixture(const DataState& data) {
  return std::ranges::count_if(data.parts, [](const DataPart& part) { return part.used; }) > 1;
}

void check_requires(const Json& words) {
  require(words.is_array(), "requires is no list");
  for (const std::string word : words) {
    if (word == mixture_word) continue;
    throw Error(ExitCode::bad_data,
                fmt::format("it requires \"{}\", which nibble {} does not know: written by a newer version", word,
                            NIBBLE_VERSION));
  }
}

Manifest parse_version_2(const Json& root) {
  check_requires(root.at("format").at("requires"));
  Manifest manifest;
  CheckpointInfo& info = manifest.info;
  info.format_version = 2;
  info.nibble_version = root.at("nibble");
  info.commit = root.at("commit");
  info.step = unsigned_member(root, "step");
  info.tokens = unsigned_member(root, "tokens");
  info.seed = unsigned_member(root, "seed");
  parse_numbers(root, info);
  parse_data(root, info.data);
  const uint64_t ranks = unsigned_member(root, "ranks");
  require(ranks > 0 && ranks <= INT32_MAX, "ranks is impossible");
  info.ranks = static_cast<int>(ranks);
  info.parallel = {.shard = root.at("parallel").at("shard"), .order = root.at("parallel").at("order")};
  parse_arrays(root, info);
  parse_rank_files(root.at("files"), manifest);
  return manifest;
}

Manifest parse_members(const Json& root) {
  const Json& format = root.at("format");
  require(format.at("name") == format_name, "this is not a nibble checkpoint");
  const uint64_t version = unsigned_member(format, "version");
  require(version == 1 || version == format_version,
          fmt::format("format version {} is neither {} nor 1: written by another version of nibble ({})", version,
                      format_version, root.at("nibble").get<std::string>()));
  return version == 1 ? parse_version_1(root) : parse_version_2(root);
}

Json json_of(const std::vector<Range>& ranges) {
  Json list = Json::array();
  for (const Range& range : ranges) list.push_back({range.begin, range.end});
  return list;
}

Json json_of(const TensorLayout& tensor, const ArrayInfo& weights) {
  NIBBLE_CHECK(is_plain_name(tensor.name), tensor.name);
  Json object = {{"name", tensor.name}, {"shape", tensor.shape}, {"offset", tensor.offset}, {"id", tensor.tensor_id}};
  if (tensor.matrices > 1) object["matrices"] = tensor.matrices;
  if (weights.dtype_of(tensor) != weights.dtype) object["dtype"] = name_of(weights.dtype_of(tensor));
  return object;
}

Json json_of(const ArrayInfo& array) {
  Json object = {{"name", array.name}, {"dtype", name_of(array.dtype)}};
  if (array.elements_a_value > 1) object["elements_a_value"] = array.elements_a_value;
  if (!array.tensors.empty()) object["tensors"] = json_of(array.tensors);
  return object;
}

Json json_of(const DataState& data) {
  Json parts = Json::array();
  for (const DataPart& part : data.parts) {
    Json object = {{"name", part.name},
                   {"weight", part.weight},
                   {"windows", part.windows},
                   {"taken", part.taken},
                   {"tokens", part.tokens}};
    if (!part.used) object["used"] = false;
    if (!part.position.lengths.empty()) {
      object["across_shards"] = part.position.across_shards;
      object["epoch"] = part.position.epoch;
      object["taken_in_epoch"] = part.position.taken;
      object["lengths"] = part.position.lengths;
      object["shards"] = Json::array();
      for (const uint64_t identity : part.position.shards) object["shards"].push_back(to_hex(identity));
    }
    parts.push_back(std::move(object));
  }
  return {{"fingerprint", data.fingerprint}, {"sequence_length", data.sequence_length}, {"parts", std::move(parts)}};
}

void add_contents(const CheckpointInfo& info, Json& root) {
  const ArrayInfo* const weights = info.find_array(weights_array_name);
  NIBBLE_CHECK(weights != nullptr, "a checkpoint has weights");
  root["elements"] = info.layout.elements();
  for (const char* list : {"tensors", "arrays", "optimizers", "replicated"}) root[list] = Json::array();
  for (const TensorLayout& tensor : info.layout.tensors()) root["tensors"].push_back(json_of(tensor, *weights));
  for (const ArrayInfo& array : info.arrays) root["arrays"].push_back(json_of(array));
  for (const OptimizerInfo& optimizer : info.optimizers) {
    root["optimizers"].push_back({{"name", optimizer.name}, {"state", optimizer.state}});
  }
  for (const auto& array : info.replicated) {
    NIBBLE_CHECK(is_group_name(array.name), array.name);
    root["replicated"].push_back({{"name", array.name}, {"dtype", name_of(array.dtype)}, {"shape", array.shape}});
  }
}

}  // namespace

std::string rank_file_name(int rank) {
  return fmt::format("rank-{:05}.h5", rank);
}

std::string manifest_text(const Manifest& manifest) {
  const CheckpointInfo& info = manifest.info;
  Json root;
  root["format"] = {{"name", format_name}, {"version", format_version}, {"requires", Json::array()}};
  if (is_mixture(info.data)) root["format"]["requires"].push_back(mixture_word);
  root["nibble"] = info.nibble_version;
  root["commit"] = info.commit;
  root["libraries"] = {
      {"hdf5", hdf5_version()}, {"xxhash", fmt::format("{}", XXH_versionNumber())}, {"compiler", __VERSION__}};
  root["step"] = info.step;
  root["tokens"] = info.tokens;
  root["next_sample"] = info.data.next_sample;
  root["seed"] = info.seed;
  add_numbers(info, root);
  root["tokenizer"] = info.data.tokenizer;
  root["data"] = json_of(info.data);
  root["ranks"] = info.ranks;
  root["parallel"] = {{"shard", info.parallel.shard}, {"order", info.parallel.order}};
  add_contents(info, root);
  root["files"] = Json::array();
  for (size_t i = 0; i < manifest.files.size(); ++i) {
    const ManifestFile& file = manifest.files[i];
    root["files"].push_back({{"name", file.name}, {"bytes", file.digest.bytes}, {"xxh3_128", file.digest.hash}});
    if (i >= 2) root["files"].back()["ranges"] = json_of(info.rank_files.at(i - 2).ranges);
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
