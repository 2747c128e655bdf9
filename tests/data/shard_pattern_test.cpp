#include "data/shards/shard_pattern.h"

#include "data/test_files.h"

namespace nibble {
namespace {

std::vector<std::string> expand(const std::string& pattern) {
  return expand_patterns({pattern});
}

TEST(ShardPattern, MatchesAreSortedByBytes) {
  const TemporaryDirectory directory;
  const std::string folder = directory.path();
  for (const char* name : {"b.bin", "B.bin", "a.bin", "[a].bin"}) put(directory / name, "x");
  const std::vector<std::string> expected = {folder + "/B.bin", folder + "/[a].bin", folder + "/a.bin",
                                             folder + "/b.bin"};
  EXPECT_EQ(expand(folder + "/*.bin"), expected);
}

TEST(ShardPattern, ANameThatExistsIsTakenAsItIs) {
  const TemporaryDirectory directory;
  const std::string folder = directory.path();
  for (const char* name : {"exp[1]", "exp1", "exp2", "plain"}) {
    std::filesystem::create_directories(directory / name);
    put(directory / (name + std::string("/s.bin")), "x");
  }
  put(directory / "[a].bin", "x");
  put(directory / "a.bin", "x");
  using List = std::vector<std::string>;
  EXPECT_EQ(expand(folder + "/[a].bin"), List{folder + "/[a].bin"});
  EXPECT_EQ(expand(folder + "/exp[1]/*.bin"), List{folder + "/exp[1]/s.bin"});
  EXPECT_EQ(expand(folder + "/exp[12]/*.bin"), (List{folder + "/exp1/s.bin", folder + "/exp2/s.bin"}));
  EXPECT_EQ(expand(folder + "/exp[12]/s.bin"), (List{folder + "/exp1/s.bin", folder + "/exp2/s.bin"}));
  EXPECT_EQ(expand(folder + "/plain/s.bin"), List{folder + "/plain/s.bin"});
}

TEST(ShardPattern, AnEscapedNameMatchesItself) {
  const TemporaryDirectory directory;
  const std::string name = directory / R"(a*b?c[d]e\f)";
  std::filesystem::create_directories(name);
  put(name + "/s.bin", "x");
  const std::string pattern = escape_pattern(name);
  EXPECT_EQ(expand(pattern + "/*.bin"), std::vector<std::string>{name + "/s.bin"});
  EXPECT_EQ(expand(pattern + "/s.bin"), std::vector<std::string>{name + "/s.bin"});
  // A directory that is gone is looked for by its name alone.
  const std::string gone = escape_pattern((directory / "x[1]").string());
  std::filesystem::create_directories(directory / "x1");
  put(directory / "x1/s.bin", "x");
  const std::string text = expect_error(ExitCode::missing_input, [&] { expand(gone + "/*.bin"); });
  EXPECT_NE(text.find("x[1]/*.bin"), std::string::npos) << text;
}

TEST(ShardPattern, NamesTheDirectoryOfTheFirstMatch) {
  const TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "a1");
  put(directory / "a1/s.bin", "x");
  const std::string folder = directory.path();
  EXPECT_EQ(directory_of_pattern(folder + "/a*/*.bin"), folder + "/a1");
  EXPECT_EQ(directory_of_pattern(folder + "/none/*.bin"), folder + "/none");
  EXPECT_EQ(directory_of_pattern(folder + R"(/n\[1\]/*.bin)"), folder + "/n[1]");
}

TEST(ShardPattern, MistakesAreNamed) {
  const TemporaryDirectory directory;
  put(directory / "a.bin", "x");
  const std::string file = directory / "a.bin";
  expect_error(ExitCode::missing_input, [&] { expand_patterns({}); });
  expect_error(ExitCode::missing_input, [&] { expand(directory / "b.bin"); });
  expect_error(ExitCode::missing_input, [&] { expand(directory / "b*.bin"); });
  expect_error(ExitCode::bad_config, [&] { expand_patterns({file, directory / "*.bin"}); });
}

}  // namespace
}  // namespace nibble
