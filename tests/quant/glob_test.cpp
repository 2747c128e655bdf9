#include "quant/recipe/glob.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(Glob, WithoutWildcardIsLookedForInside) {
  EXPECT_TRUE(glob_matches("head", "head.weight"));
  EXPECT_TRUE(glob_matches("mlp", "blocks.3.mlp.down.weight"));
  EXPECT_TRUE(glob_matches("nothing|mlp", "blocks.3.mlp.down.weight"));
  EXPECT_FALSE(glob_matches("mlp.up", "blocks.3.mlp_up"));
  EXPECT_FALSE(glob_matches("head", "blocks.0.hea"));
}

TEST(Glob, WithWildcardMatchesTheWholeName) {
  EXPECT_TRUE(glob_matches("*", ""));
  EXPECT_TRUE(glob_matches("*.down.weight", "blocks.3.mlp.down.weight"));
  EXPECT_FALSE(glob_matches("*.down", "blocks.3.mlp.down.weight"));
  EXPECT_FALSE(glob_matches("down.*", "blocks.3.mlp.down.weight"));
  EXPECT_TRUE(glob_matches("blocks.*.down.*", "blocks.13.mlp.down.weight"));
  EXPECT_TRUE(glob_matches("*a*b*c", "xxaxabxbcabc"));
  EXPECT_FALSE(glob_matches("*a*b*c", "xxaxabxbcab"));
  EXPECT_TRUE(glob_matches("head*|tail*", "tail.weight"));
  EXPECT_TRUE(glob_matches("a**", "a"));
}

TEST(Glob, OneCharacterAndSets) {
  EXPECT_TRUE(glob_matches("blocks.?.mlp", "blocks.3.mlp"));
  EXPECT_FALSE(glob_matches("blocks.?.mlp", "blocks.13.mlp"));
  EXPECT_FALSE(glob_matches("blocks.?.mlp", "blocks..mlp"));
  EXPECT_TRUE(glob_matches("blocks.[0-2].*", "blocks.2.mlp"));
  EXPECT_FALSE(glob_matches("blocks.[0-2].*", "blocks.3.mlp"));
  EXPECT_TRUE(glob_matches("blocks.[!0-2].*", "blocks.3.mlp"));
  EXPECT_FALSE(glob_matches("blocks.[!0-2].*", "blocks.1.mlp"));
  EXPECT_TRUE(glob_matches("blocks.1[0-9].*|blocks.[13]*", "blocks.3.mlp"));
  EXPECT_TRUE(glob_matches("[a-]x", "-x"));
  EXPECT_TRUE(glob_matches("[]]", "]"));
  EXPECT_TRUE(glob_matches("*[02468].weight", "a.7.b.8.weight"));
}

// These patterns would take exponential time in a matcher that tries every split.
TEST(Glob, ManyStars) {
  const std::string name(2000, 'a');
  std::string glob;
  for (int i = 0; i < 50; ++i) glob += "a*";
  EXPECT_TRUE(glob_matches(glob, name));
  EXPECT_FALSE(glob_matches(glob + "b", name));
}

TEST(Glob, Mistakes) {
  EXPECT_EQ(glob_mistake("embedding|head|blocks.[0-9].*_?"), "");
  EXPECT_EQ(glob_mistake("*.[!a]"), "");
  EXPECT_NE(glob_mistake(""), "");
  EXPECT_NE(glob_mistake("a||b"), "");
  EXPECT_NE(glob_mistake("a|"), "");
  EXPECT_NE(glob_mistake("blocks.[0-3.*"), "");
  EXPECT_NE(glob_mistake("[!]"), "");
  for (const char* expression : {"^head", "a\\.b", "(a)", "a+", "a$", "a b"}) EXPECT_NE(glob_mistake(expression), "");
}

}  // namespace
}  // namespace nibble
