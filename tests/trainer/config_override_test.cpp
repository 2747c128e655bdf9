#include "trainer/config/config_override.h"

#include <gtest/gtest.h>

#include <string>

#include "dist/base/error.h"

namespace nibble {
namespace {

TEST(ConfigOverride, OverridesReplaceAndCreate) {
  YamlNode root = parse_yaml("a:\n  b: 1\n", "f.yaml");
  apply_override(root, parse_override("a.b=2"));
  apply_override(root, parse_override("a.c.d=*.bin"));
  apply_override(root, parse_override("e=[x, \"y z\"]"));
  apply_override(root, parse_override("f=k=v: w"));
  EXPECT_EQ(root.find("a")->value.find("b")->value.text, "2");
  EXPECT_EQ(root.find("a")->value.find("b")->value.location.text(), "--set a.b=2");
  EXPECT_EQ(root.find("a")->location.text(), "f.yaml:1:1");
  EXPECT_EQ(root.find("a")->value.find("c")->value.find("d")->value.text, "*.bin");
  EXPECT_EQ(root.find("e")->value.items[1].text, "y z");
  EXPECT_EQ(root.find("f")->value.text, "k=v: w");
  for (const char* bad : {"a", "=1", "a..b=1", "a.=1", "a.b.c=1", "e=[x"}) {
    EXPECT_THROW(apply_override(root, parse_override(bad)), Error) << bad;
  }
}

TEST(ConfigOverride, LongAssignmentsAreCutInMessages) {
  const ConfigOverride assignment = parse_override("run.dir=" + std::string(200, 'a'));
  EXPECT_EQ(assignment.key, "run.dir");
  EXPECT_EQ(assignment.value, std::string(200, 'a'));
  EXPECT_EQ(assignment.source.size(), std::string("--set ").size() + 100 + 3);
}

}  // namespace
}  // namespace nibble
