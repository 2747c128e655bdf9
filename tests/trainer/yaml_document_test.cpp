#include "trainer/yaml/yaml_document.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>

#include "dist/base/error.h"

namespace nibble {
namespace {

// Parses a text and expects a refusal whose message starts with `start`.
void expect_refused(const std::string& text, const std::string& start) {
  try {
    parse_yaml(text, "f.yaml");
    FAIL() << "accepted: " << text.substr(0, 60);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_config);
    EXPECT_EQ(std::string(error.what()).substr(0, start.size()), start);
    EXPECT_FALSE(error.remedy().empty());
  }
}

TEST(YamlDocument, KeepsValuesAndPlaces) {
  const YamlNode root = parse_yaml("a: 1\nb:\n  - x\n  - \"2\"\nc: {d: }\n", "f.yaml");
  ASSERT_EQ(root.kind, YamlNode::Kind::map);
  ASSERT_EQ(root.entries.size(), 3U);
  EXPECT_EQ(root.find("a")->value.text, "1");
  EXPECT_FALSE(root.find("a")->value.quoted);
  const YamlNode& list = root.find("b")->value;
  ASSERT_EQ(list.items.size(), 2U);
  EXPECT_EQ(list.items[1].location.text(), "f.yaml:4:5");
  EXPECT_TRUE(list.items[1].quoted);
  EXPECT_EQ(root.find("c")->location.text(), "f.yaml:5:1");
  EXPECT_EQ(root.find("c")->value.find("d")->value.kind, YamlNode::Kind::null);
  EXPECT_EQ(root.find("e"), nullptr);
}

TEST(YamlDocument, EmptyDocumentIsNull) {
  EXPECT_EQ(parse_yaml("", "f.yaml").kind, YamlNode::Kind::null);
  EXPECT_EQ(parse_yaml("# only a comment\n", "f.yaml").kind, YamlNode::Kind::null);
}

TEST(YamlDocument, RefusesWhatHidesMeaning) {
  expect_refused("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: duplicate key \"a\"");
  expect_refused("a: {b: 1, b: 2}\n", "f.yaml:1:11: duplicate key \"b\"");
  expect_refused("a: &x 1\n", "f.yaml:1:4: YAML anchors are not supported");
  expect_refused("a: &x\n", "f.yaml:1:4: YAML anchors are not supported");
  expect_refused("a: &x {b: 1}\nc: *x\n", "f.yaml:1:4: YAML anchors are not supported");
  expect_refused("&x\n- *x", "f.yaml:1:1: YAML anchors are not supported");
  expect_refused("a: *x\n", "f.yaml:1:4: ");
  expect_refused("a: {<<: {b: 1}}\n", "f.yaml:1:5: YAML merge keys (`<<`) are not supported");
  expect_refused("a: !!int 3\n", "f.yaml:1:4: YAML tags are not supported");
  expect_refused("a: !!map {}\n", "f.yaml:1:4: YAML tags are not supported");
  expect_refused("a: 1\n---\nb: 2\n", "f.yaml:2:1: a second YAML document");
  expect_refused("{[1]: 2}", "f.yaml:1:2: a key must be a word");
  expect_refused("{{a: 1}: 2}", "f.yaml:1:2: a key must be a word");
  expect_refused("a: [1, 2\nb: 3\n", "f.yaml:");
}

TEST(YamlDocument, RefusesWhatIsNotText) {
  expect_refused("a: 1\nb: \xff\n", "f.yaml:2:4: not valid UTF-8");
  expect_refused("a: \xc0\xaf\n", "f.yaml:1:4: not valid UTF-8");      // overlong
  expect_refused("a: \xed\xa0\x80\n", "f.yaml:1:4: not valid UTF-8");  // surrogate
  expect_refused("a: \xf4\x90\x80\x80\n", "f.yaml:1:4: not valid UTF-8");
  expect_refused("a: \xe2\x82", "f.yaml:1:4: not valid UTF-8");  // cut short
  expect_refused(std::string("a: b\0c\n", 7), "f.yaml:1:5: control character 0x00");
  EXPECT_EQ(parse_yaml("a: \xe2\x82\xac\xf0\x9f\x98\x80\n", "f.yaml").find("a")->value.text,
            "\xe2\x82\xac\xf0\x9f\x98\x80");
}

TEST(YamlDocument, BoundsWhatAFileMayCost) {
  std::string nested = "a: ";
  for (int i = 0; i < 15; ++i) nested += "[";
  EXPECT_NO_THROW(parse_yaml(nested + std::string(15, ']'), "f.yaml"));
  expect_refused(nested + "[" + std::string(16, ']'), "f.yaml:1:19: nested more than 16 levels deep");
  expect_refused(std::string(20'000, '['), "f.yaml:1:");
  const auto list = [](int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += "- 1\n";
    return text;
  };
  EXPECT_NO_THROW(parse_yaml(list(9'999), "f.yaml"));  // with the list itself 10,000 nodes
  expect_refused(list(10'001), "f.yaml:10001:3: more than 10000 YAML nodes");
  expect_refused("a: " + std::string(1 << 20, 'x'), "f.yaml: larger than 1 MiB");
}

TEST(YamlDocument, FilesThatAreNotThere) {
  const auto code_of = [](const std::string& path) {
    try {
      read_yaml_file(path);
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::ok;
  };
  EXPECT_EQ(code_of("no/such/file.yaml"), ExitCode::missing_input);
  EXPECT_EQ(code_of("."), ExitCode::missing_input);
}

TEST(YamlScalar, Integers) {
  const std::pair<const char*, uint64_t> good[] = {{"0", 0},
                                                   {"7", 7},
                                                   {"+7", 7},
                                                   {"1_000_000", 1'000'000},
                                                   {"1e9", 1'000'000'000},
                                                   {"1E3", 1'000},
                                                   {"1.5e1", 15},
                                                   {"10M", 10'000'000},
                                                   {"3k", 3'000},
                                                   {"2.5k", 2'500},
                                                   {"2G", 2'000'000'000},
                                                   {"2B", 2'000'000'000},
                                                   {"32Ki", 32'768},
                                                   {"1.5Ki", 1'536},
                                                   {"3Mi", 3'145'728},
                                                   {"1Gi", 1'073'741'824},
                                                   {"100e-2", 1},
                                                   {"3.000", 3},
                                                   {"9007199254740993", 9007199254740993},
                                                   {"18446744073709551615", UINT64_MAX}};
  for (const auto& [text, value] : good) {
    const auto parsed = parse_integer(text);
    ASSERT_TRUE(parsed.has_value()) << text;
    EXPECT_EQ(parsed->magnitude, value) << text;
    EXPECT_FALSE(parsed->negative) << text;
  }
  EXPECT_TRUE(parse_integer("-5")->negative);
  for (const char* bad : {"",
                          "-",
                          "x",
                          "1x",
                          "0x10",
                          "010",
                          "1.5",
                          "1e-1",
                          "1__0",
                          "_1",
                          "1_",
                          "1 000",
                          "1,000",
                          "1K",
                          "1KB",
                          "1ki",
                          "1T",
                          "18446744073709551616",
                          "1e20",
                          "1e99999999999",
                          "nan",
                          "inf",
                          ".inf",
                          ".5",
                          "5.",
                          "1e",
                          "--1",
                          "1e400",
                          "99999999999999999999999999999999999999999999"}) {
    EXPECT_FALSE(parse_integer(bad).has_value()) << bad;
  }
}

TEST(YamlScalar, Reals) {
  EXPECT_EQ(parse_real("0.1"), 0.1);
  EXPECT_EQ(parse_real("3e-3"), 3e-3);
  EXPECT_EQ(parse_real("1e-08"), 1e-8);
  EXPECT_EQ(parse_real("-2.5"), -2.5);
  EXPECT_EQ(parse_real("1.5M"), 1.5e6);
  EXPECT_EQ(parse_real("1Ki"), 1024.0);
  EXPECT_EQ(parse_real("0.30000000000000004"), 0.1 + 0.2);
  for (const char* bad : {"", "nan", "inf", "-inf", ".inf", "1e400", "0x1p3", "0,5", "1.", ".5", "1e5e5", "infinity"}) {
    EXPECT_FALSE(parse_real(bad).has_value()) << bad;
  }
}

TEST(YamlScalar, StringsComeBack) {
  for (const char* text : {"plain", "runs/a-b.c", "", "*-*-", "a b", "true", "No", "null", "3", "1e9", "~", "a\"b\\c",
                           "#x", "a: b", "- a", "\xe2\x82\xac", "[", "x\ty"}) {
    const YamlNode node = parse_yaml("k: " + yaml_string(text) + "\n", "f.yaml");
    EXPECT_EQ(node.find("k")->value.text, text);
    EXPECT_EQ(node.find("k")->value.kind, YamlNode::Kind::scalar) << text;
  }
}

}  // namespace
}  // namespace nibble
