// Writes the values of trainer/config/field_table.h as YAML text, and compares them.
#include <fmt/format.h>

#include <map>
#include <string>
#include <vector>

#include "trainer/config/field_table.h"
#include "trainer/config/recipe/recipe_file.h"
#include "trainer/config/user_path.h"

namespace nibble {
namespace {

template <class... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};
template <class... Visitors>
Overloaded(Visitors...) -> Overloaded<Visitors...>;

std::string list_text(const std::vector<std::string>& values) {
  std::vector<std::string> quoted;
  quoted.reserve(values.size());
  for (const std::string& value : values) quoted.push_back(yaml_string(value));
  return fmt::format("[{}]", fmt::join(quoted, ", "));
}

std::vector<std::string> written_paths(const std::vector<std::string>& paths) {
  std::vector<std::string> written;
  for (const std::string& path : paths) written.push_back(written_path(path));
  return written;
}

std::string sets_text(const std::vector<ShardSet>& sets) {
  if (sets.empty()) return "[]";
  if (sets.front().name.empty()) return list_text(written_paths(sets.front().patterns));
  std::vector<std::string> texts;
  texts.reserve(sets.size());
  for (const ShardSet& set : sets) {
    texts.push_back(fmt::format("{}: {}", yaml_string(set.name), list_text(written_paths(set.patterns))));
  }
  return fmt::format("{{{}}}", fmt::join(texts, ", "));
}

std::string mixture_text(const std::vector<ShardSet>& sets) {
  if (sets.empty()) return "[]";
  if (sets.size() == 1) return list_text(written_paths(sets.front().patterns));
  std::vector<std::string> texts;
  for (const ShardSet& set : sets) {
    texts.push_back(fmt::format("{{name: {}, shards: {}, weight: {}}}", yaml_string(set.name),
                                list_text(written_paths(set.patterns)), set.weight));
  }
  return fmt::format("[{}]", fmt::join(texts, ", "));
}

std::string rates_text(const std::map<uint64_t, double>& rates) {
  std::vector<std::string> texts;
  texts.reserve(rates.size());
  for (const auto& [step, rate] : rates) texts.push_back(fmt::format("{}: {}", step, rate));
  return fmt::format("{{{}}}", fmt::join(texts, ", "));
}

// Returns the target for reading only. The const_cast is needed because the table's accessors take a mutable
// configuration.
FieldTarget target_of(const Field& field, const RunConfig& config) {
  return field.target(const_cast<RunConfig&>(config));
}

}  // namespace

std::string field_text(const Field& field, const RunConfig& config) {
  return std::visit(Overloaded{[](const std::string* value) { return yaml_string(*value); },
                               [](const PathField& path) { return yaml_string(written_path(*path.value)); },
                               [](const MixtureField& sets) { return mixture_text(*sets.value); },
                               [](const ShardSetsField& sets) { return sets_text(*sets.value); },
                               [](const RatesField& rates) { return rates_text(*rates.value); },
                               [](const KeyListField& keys) { return list_text(*keys.value); },
                               [](const ChoiceField& choice) { return std::string(choice.name()); },
                               [](const Recipe* recipe) { return yaml_string(recipe->name); },
                               [](const auto* value) { return fmt::format("{}", *value); }},
                    target_of(field, config));
}

bool same_value(const Field& field, const RunConfig& a, const RunConfig& b) {
  if (field.key != "recipe") return field_text(field, a) == field_text(field, b);
  Recipe renamed = b.recipe;  // recipes that differ in their names only compute the same
  renamed.name = a.recipe.name;
  return recipe_yaml(a.recipe) == recipe_yaml(renamed);
}

std::string range_text(const Field& field) {
  const auto text = [](double value) {
    return value == static_cast<double>(UINT64_MAX) ? std::string("18446744073709551615")
                                                    : fmt::format("{:.10g}", value);
  };
  const FieldRange& range = field.range;
  if (range.maximum == 0) return {};
  if (range.above_minimum) return fmt::format("above {}, up to {}", text(range.minimum), text(range.maximum));
  return fmt::format("{} to {}", text(range.minimum), text(range.maximum));
}

}  // namespace nibble
