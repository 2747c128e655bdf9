// Decoding token by token has the bits of decoding the whole text, with every recipe that comes with nibble.
#include <gtest/gtest.h>

#include <filesystem>

#include "model/decode_fixture.h"
#include "trainer/config/recipe/recipe_file.h"

namespace nibble::test {
namespace {

TEST(DecodeRecipes, TokenByTokenIsTheWholeText) {
  int tried = 0;
  for (const auto& entry : std::filesystem::directory_iterator(NIBBLE_SOURCE_DIR "/configs/recipes")) {
    Decoding test(load_recipe(entry.path().string()), DType::bf16);
    for (Linear* linear : test.model().linears()) {
      std::vector<int32_t> channels(static_cast<size_t>(linear->outlier_count()));
      for (size_t i = 0; i < channels.size(); ++i) channels[i] = static_cast<int32_t>(3 * i + 1);
      if (!channels.empty()) linear->set_outlier_channels(channels);
    }
    const std::vector<float> whole = test.decode({text_length});
    EXPECT_TRUE(same_bits(test.decode(std::vector<int64_t>(text_length, 1)), whole)) << entry.path();
    EXPECT_TRUE(same_bits(test.decode({1, 3, 64, 92}), whole)) << entry.path();
    ++tried;
  }
  EXPECT_GE(tried, 21);
}

}  // namespace
}  // namespace nibble::test
