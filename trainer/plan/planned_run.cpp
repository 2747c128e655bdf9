#include "trainer/plan/planned_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "dist/base/error.h"
#include "dist/base/text.h"
#include "dist/device/device.h"
#include "dist/device/thread_pool.h"
#include "model/cost.h"
#include "trainer/config/field_table.h"
#include "trainer/huggingface/model_source.h"
#include "trainer/yaml/yaml_document.h"

namespace nibble {
namespace {

constexpr int64_t most_ranks = 4096;
constexpr int64_t tokens_a_parameter = 20;  // Hoffmann et al. 2022, arXiv 2203.15556
constexpr std::string_view assumed_source = "assumed by nibble plan";

// Returns whether a file is one of configs/models: keys of the section model without its name above them.
bool describes_model(const YamlNode& root) {
  return root.kind == YamlNode::Kind::map && !root.entries.empty() &&
         std::ranges::all_of(root.entries, [](const YamlEntry& entry) { return find_field("model." + entry.key); });
}

// Returns whether a file has the section model and no other.
bool has_only_model(const YamlNode& root) {
  return root.kind == YamlNode::Kind::map && root.entries.size() == 1 && root.entries.front().key == "model";
}

// The run around a model: what the file and the overrides do not say.
class RunAroundModel {
 public:
  RunAroundModel(const YamlNode& model, std::vector<ConfigOverride> given, bool on_gpu, int64_t ranks)
      : model_(model), given_(std::move(given)), on_gpu_(on_gpu), ranks_(ranks) {}

  // Returns the overrides that make a configuration of the file, those that were given among them.
  std::vector<ConfigOverride> overrides() {
    const int64_t length = number("model.sequence_length", 1024);
    const int64_t tokens = on_gpu_ ? 16384 : 2048;
    if (said("model.vocab_size") == nullptr && model_.find("vocab_size") == nullptr) add("model.vocab_size", "50304");
    add("recipe", "nvfp4");
    add("run.dir", "runs/plan", /*tell=*/false);
    add("data.train", "data/train-*.bin", /*tell=*/false);
    add("optimizer.learning_rate", "1e-3", /*tell=*/false);
    add("train.micro_batch_sequences", std::to_string(std::max<int64_t>(1, tokens / std::max<int64_t>(1, length))));
    const int64_t micro_batch = length * number("train.micro_batch_sequences", 1);
    const int64_t wanted = on_gpu_ ? 524288 : 16384;
    const int64_t micro_batches = round_up(div_ceil(wanted, std::max<int64_t>(1, micro_batch)), ranks_);
    add("train.tokens_per_step", std::to_string(micro_batch * micro_batches));
    steps_given_ = said("train.steps") != nullptr;
    add("train.steps", "1", /*tell=*/false);
    std::vector<ConfigOverride> all = std::move(added_);
    all.insert(all.end(), given_.begin(), given_.end());
    return all;
  }

  // Decides what follows from the size of the model.
  void complete(RunConfig& config) {
    if (steps_given_ || config.model.vocab_size == 0) return;
    const auto parameters = static_cast<int64_t>(model_cost(config.model).parameters);
    config.train.steps = div_ceil(tokens_a_parameter * parameters, config.train.tokens_per_step);
    assumed_.push_back(fmt::format("train.steps={} ({} tokens a parameter)", config.train.steps, tokens_a_parameter));
  }

  std::vector<std::string> assumed() && { return std::move(assumed_); }

 private:
  const ConfigOverride* said(std::string_view key) const {
    for (const auto* list : {&given_, &added_}) {
      const auto last = std::find_if(list->rbegin(), list->rend(), [&](const auto& each) { return each.key == key; });
      if (last != list->rend()) return &*last;
    }
    return nullptr;
  }
  int64_t number(std::string_view key, int64_t otherwise) const {
    const ConfigOverride* const override = said(key);
    const YamlEntry* const entry = model_.find(key.substr(key.find('.') + 1));
    const std::optional<ParsedInteger> value =
        override != nullptr ? parse_integer(override->value)
                            : (entry != nullptr ? parse_integer(entry->value.text) : std::nullopt);
    return value && !value->negative && value->magnitude < (uint64_t{1} << 30) ? static_cast<int64_t>(value->magnitude)
                                                                               : otherwise;
  }
  void add(const std::string& key, const std::string& value, bool tell = true) {
    if (said(key) != nullptr) return;
    added_.push_back({key, value, fmt::format("{}={} ({})", key, value, assumed_source)});
    if (tell) assumed_.push_back(fmt::format("{}={}", key, value));
  }

  const YamlNode& model_;
  std::vector<ConfigOverride> given_, added_;
  std::vector<std::string> assumed_;
  bool on_gpu_;
  int64_t ranks_;
  bool steps_given_ = false;
};

RunConfig read_config(const PlanRequest& request, bool on_gpu, std::vector<std::string>& assumed) {
  std::vector<ConfigOverride> overrides;
  if (!request.recipe.empty()) overrides.push_back({"recipe", request.recipe, "--recipe " + request.recipe});
  for (ConfigOverride& each : parse_overrides(request.overrides)) overrides.push_back(std::move(each));
  const YamlNode root = read_yaml_file(request.config);
  const bool is_preset = describes_model(root);
  const bool is_section = has_only_model(root);
  if (!is_preset && !is_section) return parse_run_config(request.config, overrides, model_at);
  RunAroundModel around(is_preset ? root : root.entries.front().value, std::move(overrides), on_gpu, request.ranks);
  const std::vector<ConfigOverride> all = around.overrides();
  RunConfig config;
  if (is_section) {
    config = parse_run_config(request.config, all, model_at);
  } else {
    const std::string path = std::filesystem::absolute(request.config).lexically_normal().string();
    config = parse_run_config_text(fmt::format("model: {{preset: {}}}\n", nibble::quoted(path)), request.config, all);
  }
  around.complete(config);
  for (std::string& each : std::move(around).assumed()) assumed.push_back(std::move(each));
  return config;
}

void check_ranks(int64_t ranks) {
  if (ranks >= 1 && ranks <= most_ranks) return;
  throw Error(ExitCode::usage, fmt::format("--ranks {}: not a number of ranks", ranks),
              fmt::format("use 1 to {}", most_ranks));
}

void check_vocabulary(const RunConfig& config) {
  if (config.model.vocab_size > 0) return;
  throw Error(ExitCode::bad_config,
              "model.vocab_size is 0, which means that of the data, and nibble plan reads no data",
              "give it: --set model.vocab_size=50304 (nibble inspect shows that of a shard; round it up to a multiple "
              "of 16)");
}

void check_split(const RunConfig& config, int64_t ranks) {
  const int64_t micro_batches = config.micro_batches_per_step();
  if (ranks <= micro_batches) return;
  const int64_t micro_batch = config.train.tokens_per_step / micro_batches;
  throw Error(ExitCode::bad_config,
              fmt::format("a step of {} tokens has {} micro-batches of {}, which {} ranks cannot share",
                          config.train.tokens_per_step, micro_batches, micro_batch, ranks),
              fmt::format("take --ranks {}, --set train.tokens_per_step={}, or a smaller train.micro_batch_sequences",
                          micro_batches, micro_batch * ranks));
}

// Returns whether a run with this configuration would refuse to start on a CPU.
bool needs_gpu(const RunConfig& config) {
  return config.device == RunConfig::Device::cuda || config.comm.reduction == ReductionKind::nccl;
}

DescribedGpu description_of(const PlannedDevice& device, const RunConfig& config) {
  using Products = DescribedGpu::Products;
  DescribedGpu gpu{.capability = device.capability};
  if (config.cuda.gemm == cuda::GemmBackendKind::exact) gpu.products = Products::exact;
  if (config.cuda.gemm == cuda::GemmBackendKind::emulated) gpu.products = Products::emulated;
  return gpu;
}

}  // namespace

PlannedRun read_planned_run(const PlanRequest& request) {
  check_ranks(request.ranks);
  PlannedRun run;
  run.ranks = static_cast<int>(request.ranks);
  if (!request.device.empty()) run.device = find_device(request.device);
  run.config = read_config(request, run.device != nullptr, run.assumed);
  if (request.device.empty() && needs_gpu(run.config)) {
    run.device = &planned_devices().front();
    run.assumed.push_back(fmt::format("--device {} (the configuration is for GPUs)", run.device->name));
  }
  check_vocabulary(run.config);
  check_split(run.config, request.ranks);
  run.config.device = run.device == nullptr ? RunConfig::Device::cpu : RunConfig::Device::cuda;
  if (run.device != nullptr) describe_gpu(description_of(*run.device, run.config));
  const auto threads = static_cast<int>(run.config.train.threads);
  set_compute_threads(threads > 0 ? threads : available_threads(run.ranks), run.ranks);
  return run;
}

}  // namespace nibble
