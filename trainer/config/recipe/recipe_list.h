// The recipes that can be given by name, with what their files say of themselves.
#pragma once

#include <string>
#include <vector>

namespace nibble {

struct ListedRecipe {
  std::string name = {};  // that of the file, by which the recipe is given
  std::string path = {};
  std::string summary = {};  // one line; empty where the file says nothing
  std::string take = {};     // when to take it; empty for most
  std::string fault = {};    // why the file is no recipe; empty for a recipe
};

// Returns the recipes of the directories in which load_recipe() looks for names, sorted by name; the first directory
// with a name counts. The current directory itself, which may hold files of other kinds, is left out.
std::vector<ListedRecipe> list_recipes();

}  // namespace nibble
