// nibble recipes: one line for each recipe, and which of them to take.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "trainer/commands/commands.h"
#include "trainer/config/recipe/recipe_list.h"

namespace nibble {
namespace {

void print_json(const std::vector<ListedRecipe>& recipes) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const ListedRecipe& recipe : recipes) {
    nlohmann::ordered_json object = {
        {"name", recipe.name}, {"path", recipe.path}, {"summary", recipe.summary}, {"take", recipe.take}};
    if (!recipe.fault.empty()) object["fault"] = recipe.fault;
    list.push_back(std::move(object));
  }
  fmt::print("{}\n", list.dump(2));
}

void print_table(const std::vector<ListedRecipe>& recipes) {
  size_t width = 0;
  for (const ListedRecipe& recipe : recipes) width = std::max(width, recipe.name.size());
  for (const ListedRecipe& recipe : recipes) {
    fmt::print("{:<{}}  {}\n", recipe.name, width,
               recipe.fault.empty() ? recipe.summary : "no recipe: " + recipe.fault);
  }
  fmt::print("\nWhich one to take:\n");
  for (const ListedRecipe& recipe : recipes) {
    if (!recipe.take.empty()) fmt::print("  {:<{}}  {}\n", recipe.name, width, recipe.take);
  }
  fmt::print(
      "\n`--set recipe=NAME` takes one, `nibble config show` writes it out, and docs/recipes.md says how to write your "
      "own.\n");
}

}  // namespace

void add_recipes_options(CLI::App& command) {
  auto json = std::make_shared<bool>(false);
  command.add_flag("--json", *json, "Print a JSON array");
  command.footer("Example:\n  nibble recipes");
  command.final_callback([json] {
    const std::vector<ListedRecipe> recipes = list_recipes();
    *json ? print_json(recipes) : print_table(recipes);
  });
}

}  // namespace nibble
