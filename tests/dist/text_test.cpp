#include "dist/base/text.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "dist/base/utf8.h"

namespace nibble {
namespace {

TEST(Text, NearestWord) {
  const std::vector<std::string_view> words = {"train", "tokenize", "resume", "compare"};
  EXPECT_EQ(nearest_word("trian", words), "train");
  EXPECT_EQ(nearest_word("tokenise", words), "tokenize");
  EXPECT_EQ(nearest_word("xyz", words), "");
  EXPECT_EQ(nearest_word(std::string(100'000, 'a'), words), "");
}

TEST(Text, MessagesStayShort) {
  EXPECT_EQ(shown("a\nb"), "\"a\\x0ab\"");
  std::string euros;
  for (int i = 0; i < 1'000; ++i) euros += "\xe2\x82\xac";
  EXPECT_LT(shown(euros).size(), 100U);
  EXPECT_TRUE(is_utf8(shown(euros)));
}

TEST(Text, UnknownWordsComeWithWhatWasMeant) {
  const std::vector<std::string_view> words = {"train", "resume"};
  EXPECT_EQ(unknown_word("trian", words), "\"trian\" (did you mean \"train\"?)");
  EXPECT_EQ(unknown_word("x\ny", words), "\"x\\x0ay\"");
  EXPECT_EQ(did_you_mean(""), "");
}

TEST(Text, NumbersHaveSeparators) {
  EXPECT_EQ(with_thousands(0), "0");
  EXPECT_EQ(with_thousands(999), "999");
  EXPECT_EQ(with_thousands(1000), "1,000");
  EXPECT_EQ(with_thousands(1234567), "1,234,567");
  EXPECT_EQ(with_thousands(18446744073709551615U), "18,446,744,073,709,551,615");
}

TEST(Text, EqualTextsAreCounted) {
  EXPECT_EQ(counted({}, "linear"), "");
  EXPECT_EQ(counted({"nvfp4", "bf16", "nvfp4"}, "linear"), "1 linear: bf16; 2 linear: nvfp4");
}

TEST(Text, Durations) {
  EXPECT_EQ(duration_text(-1), "0s");
  EXPECT_EQ(duration_text(59.2), "59s");
  EXPECT_EQ(duration_text(59.6), "1m00s");
  EXPECT_EQ(duration_text(200), "3m20s");
  EXPECT_EQ(duration_text(7500), "2h05m");
  EXPECT_EQ(duration_text(1e6), "11d13h");
}

}  // namespace
}  // namespace nibble
