// Reads manifests of version 1, which nibble 0.1 wrote: each rank file has one range of the logical order ("shards"),
// and every array ("groups") has values for all elements of all tensors, of one dtype. What version 1 does not say is
// left open: tokenizer, sequence length, the next sample (complete_version_1() in manifest.h finds what it can).
#include <fmt/format.h>

#include <optional>

#include "data/loader.h"
#include "dist/base/error.h"
#include "dist/base/hash.h"
#include "trainer/checkpoint/manifest_json.h"
#include "trainer/config/run_config.h"

namespace nibble {
namespace {

// Returns the number of elements of the logical order.
uint64_t parse_shards(const Json& shards, CheckpointInfo& info) {
  uint64_t next = 0;
  for (const Json& object : shards) {
    const Range range{unsigned_member(object, "begin"), unsigned_member(object, "end")};
    require(range.begin == next && range.end >= range.begin, "shards do not follow each other");
    info.rank_files.push_back({rank_file_name(static_cast<int>(info.rank_files.size())), {}});
    if (!range.empty()) info.rank_files.back().ranges.push_back(range);
    next = range.end;
  }
  info.ranks = static_cast<int>(info.rank_files.size());
  require(info.ranks > 0, "no shards");
  return next;
}

// Tensors have the dtype of the array in which their weights are, and ids in their order.
void parse_tensors(const Json& root, uint64_t elements, CheckpointInfo& info) {
  const ArrayInfo* const weights = info.find_array(weights_array_name);
  std::vector<TensorLayout> tensors;
  uint64_t next_offset = 0;
  for (const Json& object : root.at("tensors")) {
    tensors.push_back(parse_tensor(object, next_offset));
    tensors.back().tensor_id = static_cast<uint32_t>(tensors.size() - 1);
    if (weights == nullptr) continue;
    require(weights->dtype == DType::bf16 || weights->dtype == DType::f32, "weights have an impossible dtype");
    tensors.back().width = static_cast<uint8_t>(size_of(weights->dtype));
  }
  info.layout = layout_of(std::move(tensors), elements);
}

}  // namespace

Manifest parse_version_1(const Json& root) {
  Manifest manifest;
  CheckpointInfo& info = manifest.info;
  info.format_version = 1;
  info.step = unsigned_member(root, "step");
  info.tokens = unsigned_member(root, "tokens");
  info.seed = unsigned_member(root, "seed");
  for (const char* name : {"in_a_row", "total"}) {  // the oldest manifests do not have them
    const std::string member = fmt::format("skipped_{}", name);
    if (root.contains(member))
      info.numbers.push_back({fmt::format("skipped/{}", name), unsigned_member(root, member.c_str())});
  }
  info.data.fingerprint = root.at("data_fingerprint");
  info.nibble_version = root.at("nibble");
  OptimizerInfo optimizer{.name = "adamw", .state = {}};
  for (const Json& object : root.at("groups")) {
    const ArrayInfo& array =
        info.arrays.emplace_back(ArrayInfo{.name = object.at("name"), .dtype = dtype_of(object.at("dtype"))});
    require(is_group_name(array.name), "a group has an impossible name");
    if (array.name.starts_with(optimizer_prefix)) optimizer.state.push_back(array.name.substr(optimizer_prefix.size()));
  }
  info.optimizers.push_back(std::move(optimizer));
  if (root.contains("replicated")) {
    for (const Json& object : root.at("replicated")) {
      const DType dtype = object.contains("dtype") ? dtype_of(object.at("dtype")) : DType::f32;
      info.replicated.push_back(parse_replicated(object, dtype));
    }
  }
  const uint64_t elements = parse_shards(root.at("shards"), info);
  parse_tensors(root, elements, info);
  manifest.files = parse_files(root.at("files"), info.rank_files.size());
  return manifest;
}

namespace {

// Returns nothing if this program cannot read the configuration.
std::optional<RunConfig> config_of(const CheckpointInfo& info) {
  try {
    return parse_run_config_text(info.config_yaml, info.directory / "config.yaml");
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

void complete_version_1(CheckpointInfo& info) {
  if (info.format_version != 1) return;
  const std::optional<RunConfig> config = config_of(info);
  if (!config) return;
  info.data.sequence_length = static_cast<uint64_t>(config->model.sequence_length);
  info.data.next_sample = info.tokens / info.data.sequence_length;
}

std::string tokenizer_of_version_1(const CheckpointInfo& info) {
  const std::optional<RunConfig> config = config_of(info);
  if (!config) return {};
  try {
    const Loader loader(config->data.train.front().patterns, info.data.sequence_length, info.seed, /*shuffle=*/true);
    if (loader.fingerprint_with_names() == info.data.fingerprint) return to_hex(loader.tokenizer_hash());
  } catch (const Error&) {
  }
  return {};
}

}  // namespace nibble
