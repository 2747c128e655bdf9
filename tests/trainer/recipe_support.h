// Functions that the tests of recipe files share.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "dist/base/error.h"
#include "trainer/config/recipe/recipe_file.h"

namespace nibble::test {

inline Recipe parse(const std::string& text) {
  return parse_recipe(parse_yaml(text, "r.yaml"));
}

template <class Read>
void expect_refusal(Read read, ExitCode code, const std::string& message) {
  try {
    read();
    ADD_FAILURE() << "accepted, instead of: " << message;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    EXPECT_EQ(std::string(error.what()).substr(0, message.size()), message);
    EXPECT_FALSE(error.remedy().empty()) << message;
  }
}

inline void expect_refused(const std::string& text, const std::string& message) {
  SCOPED_TRACE(text);
  expect_refusal([&] { parse(text); }, ExitCode::bad_config, message);
}

inline void expect_same(const Recipe& a, const Recipe& b) {
  const auto same_layers = [](const LayerCondition& x, const LayerCondition& y) {
    return x.match == y.match && x.first_blocks == y.first_blocks && x.last_blocks == y.last_blocks &&
           x.last_share == y.last_share;
  };
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.linear, b.linear);
  ASSERT_EQ(a.high_precision.size(), b.high_precision.size());
  for (size_t i = 0; i < a.high_precision.size(); ++i) {
    EXPECT_TRUE(same_layers(a.high_precision[i].layers, b.high_precision[i].layers)) << i;
    EXPECT_EQ(a.high_precision[i].format, b.high_precision[i].format) << i;
  }
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (size_t i = 0; i < a.layers.size(); ++i) {
    EXPECT_TRUE(same_layers(a.layers[i].layers, b.layers[i].layers)) << i;
    EXPECT_EQ(a.layers[i].linear, b.layers[i].linear) << i;
  }
  EXPECT_EQ(a.outliers, b.outliers);
  EXPECT_EQ(a.oscillation, b.oscillation);
  ASSERT_EQ(a.late_switch.has_value(), b.late_switch.has_value());
  if (!a.late_switch) return;
  EXPECT_EQ(a.late_switch->at, b.late_switch->at);
  EXPECT_EQ(a.late_switch->gemms, b.late_switch->gemms);
  EXPECT_EQ(a.late_switch->to, b.late_switch->to);
}

// Expects that the written recipe is read back as the same recipe, and that this writes the same bytes.
inline void expect_comes_back(const Recipe& recipe) {
  const std::string written = recipe_yaml(recipe);
  SCOPED_TRACE(written);
  const Recipe again = parse(written);
  expect_same(again, recipe);
  EXPECT_EQ(recipe_yaml(again), written);
}

}  // namespace nibble::test
