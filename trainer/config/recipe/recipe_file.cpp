#include "trainer/config/recipe/recipe_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/text.h"
#include "trainer/config/config_files.h"
#include "trainer/config/recipe/recipe_operand.h"
#include "trainer/config/recipe/recipe_rules.h"
#include "trainer/config/user_path.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr size_t max_extended = 8;

bool is_file(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

std::string tidy(const fs::path& path) {
  return path.lexically_normal().string();
}

// Returns a text that is equal for two paths exactly if they lead to the same file.
std::string identity_of(const std::string& path) {
  std::error_code error;
  const fs::path canonical = fs::weakly_canonical(path, error);
  return error ? path : canonical.string();
}

std::vector<std::string> recipe_directories(const std::string& config_directory) {
  return config_directories("recipes", config_directory);
}

// A recipe as far as it has been read. The lists and the switch are kept as nodes, because reading them needs the
// complete operands.
struct WrittenRecipe {
  std::string name = "unnamed";
  WrittenLinear linear;
  std::optional<YamlNode> high_precision, layers, late_switch, outliers, oscillation;
};

class RecipeReader {
 public:
  explicit RecipeReader(std::string config_directory) : config_directory_(std::move(config_directory)) {}

  // `directory` holds the node's file: the recipe that the node extends is looked for there first.
  void read(const YamlNode& node, const std::string& directory, WrittenRecipe& recipe) {
    check_map(node, "a recipe");
    if (const YamlEntry* base = node.find("extends"); base != nullptr && base->value.kind != YamlNode::Kind::null) {
      read_base(*base, directory, recipe);
    }
    recipe.name = "unnamed";
    for (const YamlEntry& entry : node.entries) read_entry(entry, recipe);
  }

  void read_file(const std::string& path, WrittenRecipe& recipe) {
    files_.push_back(path);
    const fs::path parent = fs::path(path).parent_path();
    read(read_yaml_file(path), parent.empty() ? "." : parent.string(), recipe);
    files_.pop_back();
  }

 private:
  static void read_entry(const YamlEntry& entry, WrittenRecipe& recipe) {
    std::optional<YamlNode> given;  // empty for `key: ~`, which removes the value of the extended recipe
    if (entry.value.kind != YamlNode::Kind::null) given = entry.value;
    if (entry.key == "name") {
      recipe.name = parse_name(entry);
    } else if (entry.key == "summary" || entry.key == "take") {
      scalar_text(entry);  // for people (recipe_list.h); the recipe is the same without it
    } else if (is_gemm_key(entry.key)) {
      write_gemm(entry, recipe.linear);
    } else if (entry.key == "high_precision") {
      recipe.high_precision = given;
    } else if (entry.key == "layers") {
      recipe.layers = given;
    } else if (entry.key == "switch") {
      recipe.late_switch = given;
    } else if (entry.key == "outliers") {
      recipe.outliers = given;
    } else if (entry.key == "oscillation") {
      recipe.oscillation = given;
    } else if (entry.key != "extends") {
      refuse_key(entry, "",
                 {"name", "summary", "take", "extends", "forward", "grad_input", "grad_weight", "high_precision",
                  "layers", "switch", "outliers", "oscillation"});
    }
  }

  static std::string parse_name(const YamlEntry& entry) {
    const std::string& name = scalar_text(entry);
    const bool plain = yaml_string(name).front() != '"';
    if (!plain || name.size() > 64) {
      refuse_config(entry.value.location, fmt::format("{} is not a recipe name", shown(name)),
                    "use letters, digits, - and _, starting with a letter");
    }
    return name;
  }

  void read_base(const YamlEntry& entry, const std::string& directory, WrittenRecipe& recipe) {
    const std::string path = find_base(entry, directory);
    const std::string chain = fmt::format("{} -> {}", fmt::join(files_, " -> "), path);
    const bool known = std::any_of(files_.begin(), files_.end(),
                                   [&](const std::string& file) { return identity_of(file) == identity_of(path); });
    if (known) {
      refuse_config(entry.location, fmt::format("recipes extend each other in a circle: {}", chain),
                    "let one of them stand on its own; a recipe with the name of another is reached by its path");
    }
    if (files_.size() > max_extended) {
      refuse_config(entry.location, fmt::format("recipes extend each other more than {} deep: {}", max_extended, chain),
                    "extend a recipe nearer to the end of this chain");
    }
    read_file(path, recipe);
  }

  // The value of `extends`; in a path, ~ and variables are replaced.
  static std::string expand_name(const YamlEntry& entry) {
    const std::string& name = scalar_text(entry);
    if (!is_config_path(name)) return name;
    try {
      return expand_path(name);
    } catch (const Error& error) {
      refuse_config(entry.value.location, fmt::format("extends: {}", error.what()), error.remedy());
    }
  }

  std::string find_base(const YamlEntry& entry, const std::string& directory) const {
    const std::string name = expand_name(entry);
    const auto missing = [&](const Error& error) {
      return Error(error.code(), fmt::format("{}: {}", entry.value.location.text(), error.what()), error.remedy());
    };
    if (is_config_path(name)) {
      for (const fs::path& path : {fs::path(directory) / name, fs::path(name)}) {
        if (is_file(path.string())) return tidy(path);
      }
      throw missing(Error(ExitCode::missing_input, fmt::format("no file {}", shown(name)),
                          fmt::format("paths of \"extends\" start at {} or at the current directory", directory)));
    }
    std::vector<std::string> directories = {directory, directory + "/../recipes"};
    for (std::string& other : recipe_directories(config_directory_)) {
      if (std::find(directories.begin(), directories.end(), other) == directories.end()) {
        directories.push_back(std::move(other));
      }
    }
    try {
      return find_config_file("recipe", name, directories);
    } catch (const Error& error) {
      throw missing(error);
    }
  }

  std::string config_directory_;
  std::vector<std::string> files_;  // files that are being read: the first extends the second, and so on
};

Recipe finished(const WrittenRecipe& written) {
  Recipe recipe;
  recipe.name = written.name;
  recipe.linear = finished(written.linear);
  recipe.locations = locations_of(written.linear);
  if (written.high_precision) recipe.high_precision = parse_high_precision(*written.high_precision);
  if (written.layers) recipe.layers = parse_layers(*written.layers, written.linear);
  if (written.late_switch) recipe.late_switch = parse_switch(*written.late_switch);
  if (written.outliers) recipe.outliers = parse_outliers(*written.outliers);
  if (written.oscillation) recipe.oscillation = parse_oscillation(*written.oscillation, recipe);
  return recipe;
}

std::string linear_yaml(const LinearRecipe& linear, const std::string& pad) {
  std::string text;
  std::string_view gemm;
  for (const OperandSlot& slot : operand_slots) {
    if (slot.gemm() != gemm) text += fmt::format("{}{}:\n", pad, slot.gemm());
    gemm = slot.gemm();
    text += fmt::format("{}  {}: {}\n", pad, slot.operand(), operand_yaml(linear.*(slot.spec)));
  }
  return text;
}

}  // namespace

Recipe parse_recipe(const YamlNode& node, const std::string& config_directory) {
  WrittenRecipe written;
  RecipeReader(config_directory).read(node, config_directory, written);
  return finished(written);
}

Recipe load_recipe(const std::string& name_or_path, const std::string& config_directory) {
  std::string path;
  if (!is_config_path(name_or_path)) {
    path = find_config_file("recipe", name_or_path, recipe_directories(config_directory));
  } else {
    try {
      path = expand_path(name_or_path);
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("recipe {}: {}", shown(name_or_path), error.what()), error.remedy());
    }
  }
  WrittenRecipe written;
  RecipeReader(config_directory).read_file(path, written);
  return finished(written);
}

std::string recipe_yaml(const Recipe& recipe, int indent) {
  const std::string pad(static_cast<size_t>(indent), ' ');
  std::string text = fmt::format("{}name: {}\n", pad, yaml_string(recipe.name));
  text += linear_yaml(recipe.linear, pad);
  text += fmt::format("{}high_precision:{}\n", pad, recipe.high_precision.empty() ? " []" : "");
  for (const HighPrecisionRule& rule : recipe.high_precision) {
    text += fmt::format("{}  - {}\n", pad, high_precision_yaml(rule));
  }
  if (!recipe.layers.empty()) text += fmt::format("{}layers:\n", pad);
  for (const LayerRule& rule : recipe.layers) {
    text += fmt::format("{}  - {}\n{}", pad, condition_yaml(rule.layers), linear_yaml(rule.linear, pad + "    "));
  }
  if (recipe.late_switch) text += fmt::format("{}switch: {}\n", pad, switch_yaml(*recipe.late_switch));
  if (recipe.outliers) text += fmt::format("{}outliers: {}\n", pad, outliers_yaml(*recipe.outliers));
  if (recipe.oscillation) text += fmt::format("{}oscillation: {}\n", pad, oscillation_yaml(*recipe.oscillation));
  return text;
}

}  // namespace nibble
