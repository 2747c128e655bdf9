#include "trainer/config/run_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "data/shards/shard_pattern.h"
#include "data/tokenizers/tokenizer.h"
#include "dist/base/error.h"
#include "dist/base/text.h"
#include "dist/zero/layout.h"
#include "model/blocks/block_kind.h"
#include "quant/format/format.h"
#include "trainer/config/config_checks.h"
#include "trainer/config/field_table.h"
#include "trainer/config/recipe/recipe_file.h"
#include "trainer/config/unknown_key.h"

namespace nibble {
namespace {

class ConfigReader {
 public:
  explicit ConfigReader(const std::string& name)
      : directory_(std::filesystem::path(name).parent_path().string()),
        locations_{.document = {std::make_shared<const std::string>(name), 0, 0}, .keys = {}} {
    if (directory_.empty()) directory_ = ".";
  }

  RunConfig read(YamlNode root, const ModelReader& read_model) {
    if (root.kind == YamlNode::Kind::null) {
      refuse_config(locations_.document, "is empty", "start from configs/runs/quickstart.yaml");
    }
    if (root.kind != YamlNode::Kind::map) refuse_config(root.location, "not a mapping", "write `section:` lines");
    const std::optional<ModelConfig> from = complete_model(root, directory_, read_model);
    for (const YamlEntry& entry : root.entries) read_top_level(entry);
    check_required();
    expand_pattern(config_, locations_);
    if (from) check_origin(*from);
    check_config(config_, locations_);
    return config_;
  }

 private:
  void read_top_level(const YamlEntry& entry) {
    const Field* field = find_field(entry.key);
    if (field != nullptr && section_of(entry.key).empty()) {
      read_value(*field, entry);
      return;
    }
    if (!is_section(entry.key)) refuse_unknown_key(entry.location, entry.key);
    if (entry.value.kind == YamlNode::Kind::null) return;  // e.g. a section whose keys are all commented out
    if (entry.value.kind != YamlNode::Kind::map) {
      refuse_config(entry.value.location, fmt::format("{} is a section, not a value", shown(entry.key)),
                    "write its keys indented below it");
    }
    for (const YamlEntry& inner : entry.value.entries) {
      const std::string key = entry.key + "." + inner.key;
      const Field* inner_field = inner.key.find('.') == std::string::npos ? find_field(key) : nullptr;
      if (inner_field == nullptr) refuse_unknown_key(inner.location, key);
      read_value(*inner_field, inner);
    }
  }

  void read_value(const Field& field, const YamlEntry& entry) {
    locations_.keys[field.key] = entry.value.location.source ? entry.value.location : entry.location;
    read_field(field, entry.value, directory_, config_);
  }

  void check_required() const {
    std::vector<std::string_view> missing;
    for (const Field& field : config_fields()) {
      if (field.required && !locations_.contains(field.key)) missing.push_back(field.key);
    }
    if (missing.empty()) return;
    refuse_config(locations_.document,
                  fmt::format("missing key{} {}", missing.size() == 1 ? "" : "s", fmt::join(missing, ", ")),
                  fmt::format("add to the file, or give --set {}=...", missing.front()));
  }

  // Refuses keys that give the weights of model.from another meaning.
  void check_origin(const ModelConfig& from) const {
    RunConfig origin;
    origin.model = from;
    const bool skips = !config_.model_origin.from_skip.empty();
    for (const Field& field : config_fields()) {
      const bool of_data = field.key == "model.vocab_size" && config_.model.vocab_size == 0;
      if (of_data || !is_bound_to_weights(field, skips) || same_value(field, config_, origin)) continue;
      refuse_config(locations_.of(field.key),
                    fmt::format("{} is {}, but the model in {} has {}", field.key, field_text(field, config_),
                                config_.model_origin.from, field_text(field, origin)),
                    fmt::format("leave {} out to take it from there", field.key));
    }
  }

  std::string directory_;
  KeyLocations locations_;
  RunConfig config_;
};

RunConfig read_with_overrides(YamlNode root, const std::string& name, const std::vector<ConfigOverride>& overrides,
                              const ModelReader& read_model) {
  for (const ConfigOverride& assignment : overrides) apply_override(root, assignment);
  return ConfigReader(name).read(std::move(root), read_model);
}

std::string difference_text(const Field& field, const RunConfig& config, const RunConfig& other) {
  std::string text = field_text(field, config);
  if (field.key != "recipe" || config.recipe.name != other.recipe.name) return text;
  return fmt::format("{} with other settings", text);
}

}  // namespace

uint64_t RunConfig::gradient_groups() const {
  const int64_t micro_batches = micro_batches_per_step();
  if (train.group_micro_batches > 0) return static_cast<uint64_t>(div_ceil(micro_batches, train.group_micro_batches));
  return static_cast<uint64_t>(std::min(train.gradient_groups, micro_batches));
}

MicroBatchGroups RunConfig::micro_batch_groups() const {
  const auto micro_batches = static_cast<uint64_t>(micro_batches_per_step());
  if (train.group_micro_batches > 0) {
    return MicroBatchGroups::of_size(micro_batches, static_cast<uint64_t>(train.group_micro_batches));
  }
  return MicroBatchGroups::of_count(micro_batches, static_cast<uint64_t>(train.gradient_groups));
}

RunConfig parse_run_config(const std::string& path, const std::vector<ConfigOverride>& overrides,
                           const ModelReader& read_model) {
  return read_with_overrides(read_yaml_file(path), path, overrides, read_model);
}

RunConfig parse_run_config_text(const std::string& text, const std::string& name,
                                const std::vector<ConfigOverride>& overrides) {
  return read_with_overrides(parse_yaml(text, name), name, overrides, {});
}

std::string resolved_yaml(const RunConfig& config) {
  std::string text;
  std::string_view section;
  for (const Field& field : config_fields()) {
    if (field.key == "recipe") {
      text += "recipe:\n" + recipe_yaml(config.recipe, 2);
      section = {};
      continue;
    }
    const std::string_view field_section = section_of(field.key);
    if (!field_section.empty() && field_section != section) text += fmt::format("{}:\n", field_section);
    section = field_section;
    text += fmt::format("{}{}: {}\n", section.empty() ? "" : "  ", last_word(field.key), field_text(field, config));
  }
  return text;
}

std::vector<ConfigDifference> config_differences(const RunConfig& before, const RunConfig& after) {
  std::vector<ConfigDifference> differences;
  for (const Field& field : config_fields()) {
    if (same_value(field, before, after)) continue;
    const bool vocabulary_of_data = before.model.vocab_size == 0 || after.model.vocab_size == 0;
    if (field.key == "model.vocab_size" && vocabulary_of_data) continue;
    differences.push_back({std::string(field.key), field_text(field, before), difference_text(field, after, before),
                           field.resume, field.compare_group});
  }
  return differences;
}

void check_resume(const RunConfig& before, const RunConfig& after) {
  std::vector<std::string> frozen, numeric, numeric_keys;
  for (const ConfigDifference& difference : config_differences(before, after)) {
    const std::string text = fmt::format("{} ({} -> {})", difference.key, difference.before, difference.after);
    if (difference.resume == ResumeClass::frozen) frozen.push_back(text);
    if (difference.resume != ResumeClass::numeric || after.resume.allows(difference.key)) continue;
    numeric.push_back(text);
    numeric_keys.push_back(difference.key);
  }
  if (!frozen.empty()) {
    throw Error(ExitCode::bad_config,
                fmt::format("the checkpoint does not fit the changed {}", fmt::join(frozen, ", ")),
                "restore these keys, or start a new run in another run.dir");
  }
  if (!numeric.empty()) {
    throw Error(ExitCode::bad_config,
                fmt::format("resuming would change the run's numbers: {}", fmt::join(numeric, ", ")),
                fmt::format("restore these keys, or allow the change with --set 'resume.allow=[{}]'",
                            fmt::join(numeric_keys, ", ")));
  }
}

ScheduleConfig schedule_config(const RunConfig& config) {
  return {.kind = config.schedule.kind,
          .peak = config.optimizer.learning_rate,
          .min_ratio = config.schedule.min_ratio,
          .warmup_steps = static_cast<uint64_t>(config.schedule.warmup_steps),
          .total_steps = static_cast<uint64_t>(config.train.steps),
          .decay_share = config.schedule.decay_share,
          .later_peaks = config.schedule.peaks};
}

ShardOptions shard_options(const RunConfig& config) {
  return {.vocab_size = static_cast<uint32_t>(config.data.vocab_size),
          .model_vocab_size = static_cast<uint32_t>(config.model.vocab_size),
          .token_bytes = static_cast<uint32_t>(config.data.token_bytes)};
}

std::string tokenizer_path(const RunConfig& config) {
  if (!config.data.tokenizer.empty()) return config.data.tokenizer;
  NIBBLE_CHECK(!config.data.train.empty(), "data.train is required");
  return Tokenizer::find_beside(directory_of_pattern(config.data.train.front().patterns.front())).string();
}

}  // namespace nibble
