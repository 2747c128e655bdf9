// The tables of docs/recipes.md agree with the recipe files, and the examples of the documentation are valid recipes.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "recipe_support.h"
#include "trainer/config/recipe/recipe_operand.h"

namespace nibble::test {
namespace {

const std::string source_folder = NIBBLE_SOURCE_DIR;

std::string text_of(const std::string& path) {
  std::ifstream file(source_folder + "/" + path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string stored(const OperandSpec& spec) {
  std::string text(name_of(spec.format));
  if (!is_quantized(spec.format)) return text;
  if (traits_of(spec.format).block != 0) text += " " + name_of(spec.format, spec.block);
  text += fmt::format(", {}", name_of(spec.scale));
  if (spec.range != 0) text += fmt::format(", range {}", spec.range);
  if (spec.ceiling != 0) text += fmt::format(", ceiling {}", spec.ceiling);
  if (spec.outer != OuterScale::tensor) text += fmt::format(", FP32 scale {}", name_of(spec.outer));
  if (spec.history != 0) text += fmt::format(" of {} steps", spec.history);
  return text;
}

std::string rotated(const OperandSpec& spec) {
  if (spec.rotate == 0) return "-";
  std::string text = fmt::format("{} points", spec.rotate);
  if (spec.rotations == 2) text += ", twice";
  if (spec.signs == Signs::fixed) return text + ", fixed signs";
  return text + (spec.signs == Signs::step ? ", signs of the step" : ", signs of the micro-batch");
}

std::string rounded(const OperandSpec& spec) {
  if (!is_quantized(spec.format)) return "-";
  if (spec.round != Rounding::ms_eden) return std::string(name_of(spec.round));
  return fmt::format("ms_eden, {}", name_of(spec.correction));
}

std::string table_of(const LinearRecipe& linear) {
  struct Row {
    const char *gemm, *axis, *operand, *original;
  };
  constexpr std::array<Row, 6> rows = {{{"Y = X W^T", "features in", "X", "X"},
                                        {"", "", "W", "W"},
                                        {"dX = dY W", "features out", "dY", "dY"},
                                        {"", "", "W", "W"},
                                        {"dW = dY^T X", "tokens", "dY", "dY"},
                                        {"", "", "X", "X"}}};
  std::string text =
      "| GEMM | sums over | operand | made from | format and scale | rotation | rounding |\n"
      "|---|---|---|---|---|---|---|\n";
  for (size_t i = 0; i < rows.size(); ++i) {
    const OperandSpec& spec = linear.*(operand_slots[i].spec);
    const Row& row = rows[i];
    text += fmt::format("| {} | {} | {} | {} | {} | {} | {} |\n", row.gemm, row.axis, row.operand,
                        spec.from == Source::saved ? fmt::format("forward's {}", row.operand) : row.original,
                        stored(spec), rotated(spec), rounded(spec));
  }
  return text;
}

TEST(RecipeDocument, ShowsEveryShippedRecipe) {
  const std::string document = text_of("docs/recipes.md");
  for (const auto& entry : std::filesystem::directory_iterator(source_folder + "/configs/recipes")) {
    const std::string name = entry.path().stem().string();
    const Recipe recipe = load_recipe(entry.path().string());
    const size_t start = document.find("### " + name + "\n");
    if (start == std::string::npos) {
      ADD_FAILURE() << "no section on " << name << "; its table:\n" << table_of(recipe.linear);
      continue;
    }
    const std::string section = document.substr(start, document.find("\n##", start) - start);
    EXPECT_NE(section.find(table_of(recipe.linear)), std::string::npos) << "the table of " << name << " should be\n"
                                                                        << table_of(recipe.linear);
  }
}

TEST(RecipeDocument, ExamplesAreRecipes) {
  for (const char* path : {"docs/recipes.md", "docs/configuration.md"}) {
    const std::string document = text_of(path);
    const std::string fence = "```yaml\n";
    int examples = 0;
    for (size_t at = document.find(fence); at != std::string::npos; at = document.find(fence, at + 1)) {
      const size_t start = at + fence.size();
      const std::string example = document.substr(start, document.find("```", start) - start);
      const YamlNode node = parse_yaml(example, path);
      EXPECT_NO_THROW(parse_recipe(node, source_folder + "/configs/recipes")) << path << ":\n" << example;
      ++examples;
    }
    EXPECT_GT(examples, 0) << path;
  }
}

}  // namespace
}  // namespace nibble::test
