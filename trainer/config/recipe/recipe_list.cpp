#include "trainer/config/recipe/recipe_list.h"

#include <filesystem>
#include <map>

#include "dist/base/error.h"
#include "trainer/config/config_files.h"
#include "trainer/config/recipe/recipe_file.h"
#include "trainer/yaml/yaml_document.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

std::string text_of(const YamlNode& root, std::string_view key) {
  const YamlEntry* entry = root.find(key);
  return entry == nullptr ? std::string() : entry->value.text;
}

ListedRecipe listed(const fs::path& path) {
  ListedRecipe recipe{.name = path.stem().string(), .path = path.lexically_normal().string()};
  try {
    load_recipe(recipe.path, path.parent_path().string());
    const YamlNode root = read_yaml_file(recipe.path);
    recipe.summary = text_of(root, "summary");
    recipe.take = text_of(root, "take");
  } catch (const Error& error) {
    recipe.fault = error.what();
  }
  return recipe;
}

}  // namespace

std::vector<ListedRecipe> list_recipes() {
  std::map<std::string, ListedRecipe> recipes;
  const std::vector<std::string> directories = config_directories("recipes", ".");
  for (const std::string& directory : directories) {
    if (directory == ".") continue;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(directory, error)) {
      const fs::path& path = entry.path();
      if (path.extension() != ".yaml" || recipes.contains(path.stem())) continue;
      recipes.emplace(path.stem(), listed(path));
    }
  }
  std::vector<ListedRecipe> list;
  list.reserve(recipes.size());
  for (auto& [name, recipe] : recipes) list.push_back(std::move(recipe));
  return list;
}

}  // namespace nibble
