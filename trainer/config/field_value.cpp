// Reads the values of trainer/config/field_table.h from YAML nodes.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "data/shards/shard_pattern.h"
#include "dist/base/error.h"
#include "dist/base/text.h"
#include "dist/base/utf8.h"
#include "trainer/config/field_table.h"
#include "trainer/config/recipe/recipe_file.h"
#include "trainer/config/user_path.h"

namespace nibble {
namespace {

constexpr std::string_view number_forms = "numbers look like 100, 1_000, 1e9, 10M, 32Ki or 0.1";

// Reads one field from one node. Every error message names the key and the location.
class FieldReader {
 public:
  FieldReader(const Field& field, const YamlNode& node, const std::string& config_directory)
      : field_(field), node_(node), config_directory_(config_directory) {}

  // A text that is empty unless it is set may be set to nothing: `--set fault.throw=`.
  void operator()(std::string* value) const {
    RunConfig defaults;
    const bool may_be_empty = std::get<std::string*>(field_.target(defaults))->empty() && !field_.required;
    *value = may_be_empty && node_.kind == YamlNode::Kind::null ? std::string() : string(node_);
  }
  void operator()(PathField target) const {
    const bool is_nothing = !field_.required && node_.kind == YamlNode::Kind::null;
    const std::string text = is_nothing ? std::string() : string(node_);
    *target.value = text.empty() && !field_.required ? text : absolute(text, node_, expand_path);
  }
  void operator()(MixtureField target) const {
    const bool weighted = std::ranges::any_of(node_.items, [](const YamlNode& item) { return is_map(item); });
    if (is_map(node_))
      refuse("is a mapping", "write a pattern, a list of them, or [{shards: PATTERN, weight: W}, ...]");
    if (weighted) {
      *target.value = parts();
      return;
    }
    std::vector<std::string> paths = absolute_paths(node_);
    if (paths.empty()) refuse("is empty", "give at least one pattern");
    *target.value = {{.name = {}, .patterns = std::move(paths)}};
  }
  void operator()(ShardSetsField target) const {
    std::vector<ShardSet> sets;
    if (node_.kind != YamlNode::Kind::map) {
      std::vector<std::string> paths = absolute_paths(node_);
      if (!paths.empty()) sets.push_back({.name = {}, .patterns = std::move(paths)});
    }
    for (const YamlEntry& entry : node_.entries) {
      check_set_name(entry.key, entry.location);
      sets.push_back({.name = entry.key, .patterns = absolute_paths(entry.value)});
      if (!sets.back().patterns.empty()) continue;
      refuse_config(entry.value.location, fmt::format("{}: the set {} is empty", field_.key, shown(entry.key)),
                    "give at least one pattern, or remove the set");
    }
    *target.value = std::move(sets);
  }
  void operator()(const ChoiceField& target) const {
    const std::string text = string(node_);
    if (std::find(target.names.begin(), target.names.end(), text) == target.names.end()) {
      refuse(fmt::format("cannot be {}", unknown_word(text, target.names)),
             fmt::format("use {}", fmt::join(target.names, ", ")));
    }
    target.choose(text);
  }
  void operator()(bool* value) const {
    const std::string& text = scalar(node_);
    if (node_.quoted || (text != "true" && text != "false")) {
      refuse(fmt::format("must be true or false, not {}", shown(text)), "write true or false, without quotes");
    }
    *value = text == "true";
  }
  void operator()(double* value) const {
    const auto parsed = parse_real(number());
    if (!parsed) refuse(fmt::format("is not a number: {}", shown(node_.text)), std::string(number_forms));
    check_range(*parsed);
    *value = *parsed;
  }
  void operator()(RatesField target) const {
    std::map<uint64_t, double> rates;
    if (!is_map(node_) && node_.kind != YamlNode::Kind::null) {
      refuse("is not a mapping", "write steps and learning rates, such as {1200: 3e-4}");
    }
    for (const YamlEntry& entry : node_.entries) {
      const std::optional<ParsedInteger> step = parse_integer(entry.key);
      if (!step || step->negative || step->magnitude > UINT32_MAX) {
        refuse_config(entry.location, fmt::format("{}: {} is not a number of steps", field_.key, shown(entry.key)),
                      "write steps and learning rates, such as {1200: 3e-4}");
      }
      FieldReader(field_, entry.value, config_directory_)(&rates[step->magnitude]);
    }
    *target.value = std::move(rates);
  }
  void operator()(uint64_t* value) const {
    const ParsedInteger parsed = integer();
    check_range(parsed.negative ? -1.0 : static_cast<double>(parsed.magnitude));
    *value = parsed.magnitude;
  }
  void operator()(int64_t* value) const {
    const ParsedInteger parsed = integer();
    const auto magnitude = static_cast<double>(parsed.magnitude);
    check_range(parsed.negative ? -magnitude : magnitude);  // all ranges lie far inside 63 bits
    *value = parsed.negative ? -static_cast<int64_t>(parsed.magnitude) : static_cast<int64_t>(parsed.magnitude);
  }
  void operator()(KeyListField target) const {
    std::vector<std::string> keys;
    for (const YamlNode* item : items(node_)) {
      check_allowed_key(*item);
      keys.push_back(item->text);
    }
    std::sort(keys.begin(), keys.end());
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
    *target.value = std::move(keys);
  }
  void operator()(Recipe* value) const {
    if (node_.kind == YamlNode::Kind::map) {
      *value = parse_recipe(node_, config_directory_);
      return;
    }
    const std::string text = string(node_);
    if (text.empty()) refuse("is empty", "give a recipe's name, such as nvfp4 or bf16");
    try {
      *value = load_recipe(text, config_directory_);
    } catch (const Error& error) {
      if (error.code() == ExitCode::usage) refuse_config(node_.location, error.what(), error.remedy());
      if (error.code() != ExitCode::missing_input) throw;
      throw Error(error.code(), fmt::format("{}: {}", node_.location.text(), error.what()), error.remedy());
    }
  }

 private:
  [[noreturn]] void refuse(std::string_view what, std::string remedy) const {
    refuse_config(node_.location, fmt::format("{} {}", field_.key, what), std::move(remedy));
  }

  const std::string& scalar(const YamlNode& node) const {
    if (node.kind == YamlNode::Kind::null) refuse("has no value", "give it a value, or remove the key");
    if (node.kind != YamlNode::Kind::scalar) refuse("must be a single value", "write key: value");
    return node.text;
  }

  const std::string& string(const YamlNode& node) const {
    const std::string& text = scalar(node);
    const bool control =
        std::any_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x20 || c == 0x7F; });
    if (control || !is_utf8(text)) refuse("has control characters", "remove the escape sequences");
    if (text.size() > 4096) refuse("is longer than 4096 bytes", "shorten it");
    return text;
  }

  const std::string& number() const {
    const std::string& text = scalar(node_);
    if (node_.quoted) refuse(fmt::format("must be a number, not the string {}", shown(text)), "remove the quotes");
    return text;
  }

  ParsedInteger integer() const {
    const auto parsed = parse_integer(number());
    if (!parsed) refuse(fmt::format("is not a whole number: {}", shown(node_.text)), std::string(number_forms));
    return *parsed;
  }

  void check_range(double value) const {
    const FieldRange& range = field_.range;
    const bool above = range.above_minimum ? value > range.minimum : value >= range.minimum;
    if (above && value <= range.maximum) return;
    refuse(fmt::format("is {}, out of range", node_.text),
           fmt::format("use {}{}{}", range_text(field_), field_.unit.empty() ? "" : " ", field_.unit));
  }

  // A single string counts as a list of one.
  static std::vector<const YamlNode*> items(const YamlNode& node) {
    if (node.kind != YamlNode::Kind::sequence) return {&node};
    std::vector<const YamlNode*> result;
    for (const YamlNode& item : node.items) result.push_back(&item);
    return result;
  }

  std::vector<std::string> absolute_paths(const YamlNode& node) const {
    std::vector<std::string> paths;
    for (const YamlNode* item : items(node)) paths.push_back(absolute(string(*item), *item, expand_path_in_pattern));
    return paths;
  }

  static bool is_map(const YamlNode& node) { return node.kind == YamlNode::Kind::map; }

  // Reads the parts of a mixture. One part alone is a set without a name.
  std::vector<ShardSet> parts() const {
    constexpr double least_share = 1e-6;
    std::vector<ShardSet> sets;
    double sum = 0;
    for (const YamlNode& item : node_.items) {
      sets.push_back(part(item, fmt::format("part-{}", sets.size() + 1)));
      sum += sets.back().weight;
      const auto same = [&](const ShardSet& set) { return set.name == sets.back().name; };
      if (std::ranges::count_if(sets, same) == 1) continue;
      refuse_config(item.location, fmt::format("{}: two parts have the name {}", field_.key, shown(sets.back().name)),
                    "give every part a name of its own");
    }
    for (const ShardSet& set : sets) {
      if (set.weight >= least_share * sum) continue;
      refuse(fmt::format("gives the part {} less than a millionth of the samples", set.name),
             "give it more weight, or remove it");
    }
    if (sets.size() == 1) return {{.name = {}, .patterns = std::move(sets.front().patterns)}};
    return sets;
  }

  ShardSet part(const YamlNode& item, std::string name) const {
    const std::vector<std::string_view> keys{"shards", "weight", "name"};
    if (!is_map(item)) {
      refuse_config(item.location, fmt::format("{}: a pattern beside parts with weights", field_.key),
                    "write {shards: PATTERN, weight: W} for every part, or patterns only");
    }
    ShardSet set{.name = std::move(name), .patterns = {}, .weight = 0};
    for (const YamlEntry& entry : item.entries) {
      if (entry.key == "shards") {
        set.patterns = absolute_paths(entry.value);
      } else if (entry.key == "weight") {
        set.weight = weight(entry.value);
      } else if (entry.key == "name") {
        set.name = string(entry.value);
        check_set_name(set.name, entry.value.location);
      } else {
        refuse_config(entry.location,
                      fmt::format("{}: a part has no key {}", field_.key, unknown_word(entry.key, keys)),
                      "a part has the keys shards, weight and name");
      }
    }
    if (set.patterns.empty() || set.weight == 0) {
      refuse_config(
          item.location,
          fmt::format("{}: the part {} has no {}", field_.key, set.name, set.patterns.empty() ? "shards" : "weight"),
          "write {shards: PATTERN, weight: W}");
    }
    return set;
  }

  double weight(const YamlNode& node) const {
    constexpr double largest = 1e9;
    const auto value = node.quoted ? std::nullopt : parse_real(scalar(node));
    if (value && *value > 0 && *value <= largest) return *value;
    refuse_config(node.location, fmt::format("{}: {} is no weight", field_.key, shown(scalar(node))),
                  "use a number above 0, up to 1e9; a part that is not to be read is left out");
  }

  // Names of sets are parts of TensorBoard's tags.
  void check_set_name(const std::string& name, const SourceLocation& location) const {
    constexpr size_t longest = 64;
    const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    });
    if (plain && !name.empty() && name.size() <= longest) return;
    refuse_config(location, fmt::format("{}: {} cannot be the name of a set", field_.key, shown(name)),
                  fmt::format("use 1 to {} letters, digits, - and _", longest));
  }

  // Makes a path absolute, or a pattern: `expand` says which. Only what the user wrote is a pattern, not the current
  // directory in front of it.
  std::string absolute(const std::string& text, const YamlNode& node, std::string (*expand)(std::string_view)) const {
    if (text.empty()) refuse_config(node.location, fmt::format("{} is empty", field_.key), "give a path");
    std::string path;
    try {
      path = expand(text);
    } catch (const Error& error) {
      refuse_config(node.location, fmt::format("{}: {}", field_.key, error.what()), error.remedy());
    }
    std::error_code error;
    if (!path.starts_with('/')) {
      const std::string current = std::filesystem::current_path(error).string();
      path = (expand == expand_path ? current : escape_pattern(current)) + "/" + path;
    }
    path = std::filesystem::path(path).lexically_normal().string();
    if (error || !is_utf8(path)) {
      refuse_config(node.location,
                    fmt::format("{}: the current directory is gone or its name is not UTF-8", field_.key),
                    "give an absolute path");
    }
    return path;
  }

  void check_allowed_key(const YamlNode& item) const {
    const std::string& key = string(item);
    const Field* named = find_field(key);
    // data.tokenizer stands for the tokenizer of the shards, not only for the path of its file.
    if (named != nullptr && (named->resume == ResumeClass::numeric || key == "data.tokenizer")) return;
    std::vector<std::string_view> candidates;
    for (const Field& field : config_fields()) {
      if (field.resume == ResumeClass::numeric) candidates.push_back(field.key);
    }
    if (named == nullptr) {
      refuse_config(item.location, fmt::format("{} names no key: {}", field_.key, unknown_word(key, candidates)),
                    fmt::format("the keys it may name are {}", fmt::join(candidates, ", ")));
    }
    const bool is_frozen = named->resume == ResumeClass::frozen;
    refuse_config(item.location,
                  fmt::format("{} names \"{}\", which is {}", field_.key, key,
                              is_frozen ? "frozen: the checkpoint would not fit" : "free to change anyway"),
                  is_frozen ? "start a new run to change it" : "remove it from the list");
  }

  const Field& field_;
  const YamlNode& node_;
  const std::string& config_directory_;
};

}  // namespace

void read_field(const Field& field, const YamlNode& node, const std::string& config_directory, RunConfig& config) {
  std::visit(FieldReader(field, node, config_directory), field.target(config));
}

}  // namespace nibble
