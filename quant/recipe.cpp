#include "quant/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <regex>

#include "dist/error.h"

namespace nibble {
namespace {

[[noreturn]] void refuse(const Recipe& recipe, const std::string& what, std::string remedy) {
  throw Error(ExitCode::bad_config, fmt::format("recipe {}: {}", recipe.name, what), std::move(remedy));
}

bool name_matches(const Recipe& recipe, const std::string& pattern, std::string_view name) {
  try {
    return std::regex_search(name.begin(), name.end(), std::regex(pattern, std::regex::extended));
  } catch (const std::regex_error&) {
    refuse(recipe, fmt::format("high_precision match \"{}\" is not a regular expression", pattern),
           "write a POSIX extended regular expression, such as \"embedding|head\"");
  }
}

void check_rule(const Recipe& recipe, const LayerCondition& rule) {
  const int conditions = (rule.match.empty() ? 0 : 1) + (rule.first_blocks != 0 ? 1 : 0) +
                         (rule.last_blocks != 0 ? 1 : 0) + (rule.last_share != 0 ? 1 : 0);
  if (conditions != 1) {
    refuse(recipe, fmt::format("a high_precision rule has {} conditions", conditions),
           "give each rule exactly one of match, first_blocks, last_blocks, last_share");
  }
  const bool share_in_range = rule.last_share >= 0 && rule.last_share <= 1;
  if (rule.first_blocks < 0 || rule.last_blocks < 0 || !share_in_range) {
    refuse(recipe, "a high_precision rule counts a negative number of blocks, or a share outside 0..1",
           "give first_blocks and last_blocks a positive number, last_share one between 0 and 1");
  }
}

// ceil(share * blocks), for shares that are written in decimals: 0.15 of 20 blocks is 3, not 4.
int blocks_of_share(double share, int blocks) {
  return static_cast<int>(std::ceil(share * blocks - 1e-9));
}

bool applies(const Recipe& recipe, const LayerCondition& rule, std::string_view name, int block, int blocks) {
  if (!rule.match.empty()) return name_matches(recipe, rule.match, name);
  if (block < 0) return false;
  if (rule.first_blocks > 0) return block < rule.first_blocks;
  const int last = rule.last_blocks > 0 ? rule.last_blocks : blocks_of_share(rule.last_share, blocks);
  return block >= blocks - last;
}

}  // namespace

LinearRecipe plain_recipe(Format format) {
  OperandSpec spec;
  spec.format = format;
  return LinearRecipe{spec, spec, spec, spec, spec, spec};
}

LinearRecipe resolve(const Recipe& recipe, std::string_view parameter_name, int block, int blocks) {
  NIBBLE_CHECK(block >= -1 && block < std::max(blocks, 1), "block of a layer");
  for (const HighPrecisionRule& rule : recipe.high_precision) check_rule(recipe, rule.layers);
  for (const HighPrecisionRule& rule : recipe.high_precision) {
    if (applies(recipe, rule.layers, parameter_name, block, blocks)) return plain_recipe(rule.format);
  }
  return recipe.linear;
}

}  // namespace nibble
