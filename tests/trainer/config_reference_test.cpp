// The reference of all keys and the JSON Schema, which are made from the table of keys.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <string_view>

#include "trainer/config/field_table.h"

namespace nibble {
namespace {

TEST(ConfigReference, ReferenceIsUpToDate) {
  std::ifstream file(NIBBLE_SOURCE_DIR "/docs/configuration.md");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(), config_reference()) << "run: nibble config reference > docs/configuration.md";
}

TEST(ConfigReference, SchemaNamesEveryKey) {
  const auto schema = nlohmann::json::parse(config_schema());
  EXPECT_EQ(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
  EXPECT_EQ(schema["additionalProperties"], false);
  for (const Field& field : config_fields()) {
    const size_t dot = field.key.find('.');
    nlohmann::json object = schema;
    if (dot != std::string_view::npos) object = schema["properties"][std::string(field.key.substr(0, dot))];
    const std::string name(field.key.substr(dot + 1));
    EXPECT_TRUE(object["properties"].contains(name)) << field.key;
    // A model is given by its keys, unless a preset or another model gives them.
    const auto& required = object.contains("anyOf") ? object["anyOf"].back()["required"] : object["required"];
    EXPECT_EQ(std::find(required.begin(), required.end(), name) != required.end(), field.required) << field.key;
  }
}

}  // namespace
}  // namespace nibble
