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
#include "trainer/config/fault_throw.h"
#include "trainer/config/field_table.h"
#include "trainer/config/recipe/recipe_file.h"

namespace nibble {
namespace {

std::string_view section_of(std::string_view key) {
  const size_t dot = key.find('.');
  return dot == std::string_view::npos ? std::string_view() : key.substr(0, dot);
}

std::string_view last_word(std::string_view key) {
  return key.substr(key.rfind('.') + 1);
}

bool is_section(std::string_view name) {
  return std::any_of(config_fields().begin(), config_fields().end(),
                     [&](const Field& field) { return section_of(field.key) == name; });
}

// Returns the key that `unknown` was probably meant to be: a key with the same last word in another section, or one
// with a similar spelling.
std::string_view meant_key(std::string_view unknown) {
  std::vector<std::string_view> candidates;
  for (const Field& field : config_fields()) {
    if (last_word(field.key) == last_word(unknown)) return field.key;
    candidates.push_back(field.key);
    const std::string_view section = section_of(field.key);
    const bool known = std::find(candidates.begin(), candidates.end(), section) != candidates.end();
    if (!section.empty() && !known) candidates.push_back(section);
  }
  return nearest_word(unknown, candidates);
}

[[noreturn]] void refuse_unknown(const SourceLocation& location, const std::string& key) {
  if (find_field(key) != nullptr) {
    refuse_config(location, fmt::format("key {} is not nested", shown(key)),
                  fmt::format("write `{}:` and, indented below it, `{}:`", section_of(key), last_word(key)));
  }
  refuse_config(location, fmt::format("unknown key {}{}", shown(key), did_you_mean(meant_key(key))),
                "correct or remove it; `nibble config reference` lists every key");
}

// Reads "none", "all" or "0,2,5-7" into one flag for each block. Returns an empty list if the text has another form or
// names a block that does not exist.
std::vector<bool> parse_blocks(std::string_view text, size_t blocks) {
  std::vector<bool> flags(blocks, text == "all");
  if (text == "all" || text == "none") return flags;
  const auto number = [&](std::string_view word) -> size_t {
    const bool digits = !word.empty() && word.find_first_not_of("0123456789") == std::string_view::npos;
    const auto parsed = digits ? parse_integer(word) : std::nullopt;
    return parsed && parsed->magnitude < blocks ? static_cast<size_t>(parsed->magnitude) : blocks;
  };
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view item = text.substr(begin, end - begin);
    const size_t dash = item.find('-');
    const size_t first = number(item.substr(0, dash));
    const size_t last = dash == std::string_view::npos ? first : number(item.substr(dash + 1));
    if (first >= blocks || last >= blocks || first > last) return {};
    std::fill(flags.begin() + static_cast<std::ptrdiff_t>(first), flags.begin() + static_cast<std::ptrdiff_t>(last) + 1,
              true);
    begin = end + 1;
  }
  return flags;
}

class ConfigReader {
 public:
  explicit ConfigReader(const std::string& name)
      : directory_(std::filesystem::path(name).parent_path().string()),
        document_{std::make_shared<const std::string>(name), 0, 0} {
    if (directory_.empty()) directory_ = ".";
  }

  RunConfig read(YamlNode root, const ModelReader& read_model) {
    if (root.kind == YamlNode::Kind::null) {
      refuse_config(document_, "is empty", "start from configs/runs/quickstart.yaml");
    }
    if (root.kind != YamlNode::Kind::map) refuse_config(root.location, "not a mapping", "write `section:` lines");
    const std::optional<ModelConfig> from = complete_model(root, directory_, read_model);
    for (const YamlEntry& entry : root.entries) read_top_level(entry);
    check_required();
    expand_pattern();
    if (from) check_origin(*from);
    check_batch();
    check_groups();
    check_steps();
    check_validation();
    check_keep_best();
    check_token_bytes();
    check_recompute();
    check_fault();
    check_model();
    check_gather();
    return config_;
  }

 private:
  void read_top_level(const YamlEntry& entry) {
    const Field* field = find_field(entry.key);
    if (field != nullptr && section_of(entry.key).empty()) {
      read_value(*field, entry);
      return;
    }
    if (!is_section(entry.key)) refuse_unknown(entry.location, entry.key);
    if (entry.value.kind == YamlNode::Kind::null) return;  // e.g. a section whose keys are all commented out
    if (entry.value.kind != YamlNode::Kind::map) {
      refuse_config(entry.value.location, fmt::format("{} is a section, not a value", shown(entry.key)),
                    "write its keys indented below it");
    }
    for (const YamlEntry& inner : entry.value.entries) {
      const std::string key = entry.key + "." + inner.key;
      const Field* inner_field = inner.key.find('.') == std::string::npos ? find_field(key) : nullptr;
      if (inner_field == nullptr) refuse_unknown(inner.location, key);
      read_value(*inner_field, inner);
    }
  }

  void read_value(const Field& field, const YamlEntry& entry) {
    locations_[field.key] = entry.value.location.source ? entry.value.location : entry.location;
    read_field(field, entry.value, directory_, config_);
  }

  // Returns the location where a key was set; for a key that has its default, the document as a whole.
  SourceLocation location(std::string_view key) const {
    const auto found = locations_.find(key);
    return found == locations_.end() ? document_ : found->second;
  }

  void check_required() const {
    std::vector<std::string_view> missing;
    for (const Field& field : config_fields()) {
      if (field.required && !locations_.contains(field.key)) missing.push_back(field.key);
    }
    if (missing.empty()) return;
    refuse_config(document_, fmt::format("missing key{} {}", missing.size() == 1 ? "" : "s", fmt::join(missing, ", ")),
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
      refuse_config(location(field.key),
                    fmt::format("{} is {}, but the model in {} has {}", field.key, field_text(field, config_),
                                config_.model_origin.from, field_text(field, origin)),
                    fmt::format("leave {} out to take it from there", field.key));
    }
  }

  void check_batch() const {
    if (config_.train.head_chunk_tokens % block_rows != 0) {
      refuse_config(location("train.head_chunk_tokens"),
                    fmt::format("train.head_chunk_tokens {} is not a multiple of {}", config_.train.head_chunk_tokens,
                                block_rows),
                    fmt::format("tokens are summed in blocks of {}: use a multiple, or 0", block_rows));
    }
    const int64_t micro_batch = config_.train.micro_batch_sequences * config_.model.sequence_length;
    const int64_t tokens = config_.train.tokens_per_step;
    if (tokens % micro_batch == 0) {
      if (tokens / micro_batch <= int64_t{UINT32_MAX}) return;
      refuse_config(location("train.tokens_per_step"), "a step of more than 2^32 micro-batches",
                    "raise train.micro_batch_sequences");
    }
    const int64_t below = tokens / micro_batch * micro_batch;
    const std::string nearest =
        below == 0 ? fmt::format("{}", micro_batch) : fmt::format("{} or {}", below, below + micro_batch);
    refuse_config(location("train.tokens_per_step"),
                  fmt::format("train.tokens_per_step {} is not a multiple of a micro-batch of {} x {} = {} tokens",
                              tokens, config_.train.micro_batch_sequences, config_.model.sequence_length, micro_batch),
                  fmt::format("use {}", nearest));
  }

  // A file that knows only the older key decides by it; the default of the other one gives way.
  void check_groups() {
    RunConfig::Train& train = config_.train;
    if (train.group_micro_batches > 0 && !locations_.contains("train.gradient_groups")) train.gradient_groups = 0;
    if ((train.gradient_groups > 0) != (train.group_micro_batches > 0)) return;
    refuse_config(
        location(locations_.contains("train.gradient_groups") ? "train.gradient_groups" : "train.group_micro_batches"),
        train.gradient_groups > 0 ? "train.gradient_groups and train.group_micro_batches say the same in two ways"
                                  : "train.gradient_groups and train.group_micro_batches are both 0",
        train.gradient_groups > 0 ? "set train.group_micro_batches, the older key, to 0"
                                  : "set train.gradient_groups, for example to 8");
  }

  void check_steps() const {
    const int64_t steps = config_.train.steps;
    const auto check = [&](std::string_view key, int64_t value) {
      if (value <= steps) return;
      refuse_config(location(key), fmt::format("{} is {}, beyond the {} steps of the run", key, value, steps),
                    fmt::format("lower {}, or raise train.steps", key));
    };
    check("train.stop_at", config_.train.stop_at);
    check("schedule.warmup_steps", config_.schedule.warmup_steps);
    const double decay = config_.schedule.decay_share * static_cast<double>(steps);
    const bool decays_at_end =
        config_.schedule.kind == ScheduleKind::wsd || config_.schedule.kind == ScheduleKind::wsd_sqrt;
    if (decays_at_end && static_cast<double>(config_.schedule.warmup_steps) + decay > static_cast<double>(steps)) {
      refuse_config(location("schedule.decay_share"),
                    "warm-up and decay overlap: together they are longer than the run",
                    "lower schedule.decay_share or schedule.warmup_steps");
    }
  }

  void check_validation() const {
    if (config_.eval.every == 0 || !config_.data.validation.empty()) return;
    refuse_config(location("eval.every"), "eval.every is set, but there is no data.validation",
                  "name validation shards in data.validation, or set eval.every to 0");
  }

  void check_keep_best() const {
    const std::string& wanted = config_.checkpoint.keep_best;
    if (wanted.empty()) return;
    std::vector<std::string_view> names;
    for (const ShardSet& set : config_.data.validation) {
      names.push_back(set.name.empty() ? unnamed_validation : std::string_view(set.name));
    }
    if (std::ranges::find(names, wanted) != names.end()) return;
    if (names.empty()) {
      refuse_config(location("checkpoint.keep_best"), "checkpoint.keep_best is set, but there is no data.validation",
                    "name validation shards in data.validation, or set checkpoint.keep_best to \"\"");
    }
    refuse_config(location("checkpoint.keep_best"),
                  fmt::format("checkpoint.keep_best: there is no validation set {}", unknown_word(wanted, names)),
                  fmt::format("the sets of data.validation are: {}", fmt::join(names, ", ")));
  }

  void check_token_bytes() const {
    if (config_.data.token_bytes != 3) return;
    refuse_config(location("data.token_bytes"), "data.token_bytes is 3", "use 1, 2 or 4, or 0 for shards with headers");
  }

  void check_recompute() const {
    const size_t blocks = config_.model.pattern.size();
    if (blocks == 0 || !parse_blocks(config_.train.recompute, blocks).empty()) return;
    refuse_config(
        location("train.recompute"),
        fmt::format("train.recompute {} names no blocks of a model of {}", shown(config_.train.recompute), blocks),
        fmt::format("use none, all, or numbers from 0 to {} such as 0,2,5-7", blocks - 1));
  }

  void check_fault() const {
    const std::string& text = config_.fault.throws;
    if (text.empty()) return;
    const std::optional<FaultThrow> fault = parse_fault_throw(text);
    const size_t blocks = config_.model.pattern.size();
    if (fault && fault->step > 0 && fault->block < blocks) return;
    refuse_config(location("fault.throw"), fmt::format("fault.throw {} names no place in a run", shown(text)),
                  fmt::format("write RANK:STEP:BLOCK:forward or RANK:STEP:BLOCK:backward, with steps from 1 and blocks "
                              "from 0 to {}, such as 1:5:0:forward",
                              blocks - 1));
  }

  // Adds the location of the key that an error of the model names.
  template <class Action>
  void at_its_key(const Action& action) const {
    try {
      action();
    } catch (const ModelConfigError& error) {
      refuse_config(error.key().empty() ? document_ : location(error.key()), error.what(), error.remedy());
    }
  }

  // Everything else counts the characters of the pattern, and compares it with that of a checkpoint.
  void expand_pattern() {
    at_its_key([&] { config_.model.pattern = expanded_pattern(config_.model.pattern); });
  }

  void check_model() const {
    ModelConfig model = config_.model;
    if (model.vocab_size == 0) model.vocab_size = block_rows;
    at_its_key([&] { validate(model); });
  }

  // Weights that are sent in a narrow format need FP32 masters beside them: without the exact values, small updates
  // would be lost.
  void check_gather() const {
    if (config_.comm.gather == WeightFormat::bf16) return;
    const auto refuse = [&](const char* key, const char* is, const char* remedy) {
      refuse_config(location("comm.gather"),
                    fmt::format("comm.gather {} rounds weights that are BF16 and have FP32 masters, but {} is {}",
                                name_of(config_.comm.gather), key, is),
                    fmt::format("set {}, or comm.gather=bf16", remedy));
    };
    if (config_.model.dtype != DType::bf16) refuse("model.dtype", "fp32", "model.dtype=bf16");
    if (config_.optimizer.master_dtype != DType::f32) {
      refuse("optimizer.master_dtype", "bf16", "optimizer.master_dtype=fp32");
    }
  }

  std::string directory_;
  SourceLocation document_;
  RunConfig config_;
  std::map<std::string_view, SourceLocation> locations_;
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

std::vector<bool> recompute_blocks(const RunConfig& config) {
  std::vector<bool> flags = parse_blocks(config.train.recompute, config.model.pattern.size());
  NIBBLE_CHECK(flags.size() == config.model.pattern.size(), "train.recompute is checked when it is read");
  return flags;
}

ScheduleConfig schedule_config(const RunConfig& config) {
  return {.kind = config.schedule.kind,
          .peak = config.optimizer.learning_rate,
          .min_ratio = config.schedule.min_ratio,
          .warmup_steps = static_cast<uint64_t>(config.schedule.warmup_steps),
          .total_steps = static_cast<uint64_t>(config.train.steps),
          .decay_share = config.schedule.decay_share};
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
