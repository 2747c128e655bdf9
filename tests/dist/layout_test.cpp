// Tests of ranges and of the description of where tensors lie.
#include "dist/zero/layout.h"

#include <gtest/gtest.h>

#include "dist/base/error.h"
#include "random_layout.h"

namespace nibble {
namespace {

TEST(Range, IntersectionsAreEmptyOrWhatBothHave) {
  EXPECT_EQ(intersect({0, 5}, {3, 9}), (Range{3, 5}));
  EXPECT_EQ(intersect({3, 9}, {0, 5}), (Range{3, 5}));
  EXPECT_EQ(intersect({0, 5}, {5, 9}), Range{});
  EXPECT_EQ(intersect({0, 2}, {5, 9}), Range{});
  EXPECT_EQ(intersect({4, 4}, {0, 9}), Range{});
}

TEST(Range, PartsAreAllThatMeet) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    std::vector<Range> list;
    for (uint64_t at = random() % 3; list.size() < 8;) {
      const uint64_t end = at + random() % 4;
      list.push_back({at, end});
      at = end + random() % 3;
    }
    for (uint64_t begin = 0; begin < 20; ++begin) {
      for (uint64_t end = begin; end < 20; ++end) {
        std::vector<std::pair<size_t, Range>> expected;
        for (size_t i = 0; i < list.size(); ++i) {
          const Range both = intersect(list[i], {begin, end});
          if (!both.empty()) expected.emplace_back(i, both);
        }
        std::vector<std::pair<size_t, Range>> found;
        for_each_part(list, {begin, end}, [&](size_t i, Range part) { found.emplace_back(i, part); });
        ASSERT_EQ(found, expected);
      }
    }
  }
}

TensorLayout tensor(std::string name, std::vector<int64_t> shape, uint32_t id, uint64_t offset) {
  TensorLayout result{
      .name = std::move(name), .shape = std::move(shape), .tensor_id = id, .offset = offset, .count = 1};
  for (const int64_t extent : result.shape) result.count *= static_cast<uint64_t>(extent);
  return result;
}

TEST(Layout, WeightsOfDifferentWidthsFollowEachOther) {
  std::vector<TensorLayout> tensors{tensor("a", {5}, 0, 0), tensor("b", {3}, 1, 16), tensor("c", {2, 8}, 2, 32)};
  tensors[1].width = 4;
  const Layout layout({{"all", {0, 48}}}, tensors);
  EXPECT_EQ(layout.elements(), 48u);
  EXPECT_EQ(layout.weight_byte(0), 0u);
  EXPECT_EQ(layout.weight_byte(4), 8u);
  EXPECT_EQ(layout.weight_byte(16), 32u);  // the gap of a 2-byte tensor has 2 bytes an element
  EXPECT_EQ(layout.weight_byte(18), 40u);
  EXPECT_EQ(layout.weight_byte(32), 96u);
  EXPECT_EQ(layout.weight_bytes(), 128u);
  EXPECT_EQ(layout.with_gap(0, {2, 5}), (Range{2, 16}));
  EXPECT_EQ(layout.with_gap(0, {2, 4}), (Range{2, 4}));
  EXPECT_EQ(layout.with_gap(2, {0, 16}), (Range{32, 48}));
  EXPECT_EQ(layout.find("b"), &layout.tensors()[1]);
  EXPECT_EQ(layout.find("d"), nullptr);
}

TEST(Layout, UnitsArePartsOfMatrices) {
  TensorLayout plain = tensor("plain", {6, 10}, 0, 0);
  EXPECT_EQ(plain.units(), (std::vector<Range>{{0, 60}}));
  TensorLayout fused = tensor("qkv", {64, 10}, 0, 0);
  fused.parts = {{"q", 32}, {"k", 16}, {"v", 16}};
  EXPECT_EQ(fused.units(), (std::vector<Range>{{0, 320}, {320, 480}, {480, 640}}));
  TensorLayout stack = tensor("experts", {2, 48, 10}, 0, 0);
  stack.matrices = 2;
  EXPECT_EQ(stack.units(), (std::vector<Range>{{0, 480}, {480, 960}}));
  stack.parts = {{"gate", 32}, {"up", 16}};
  EXPECT_EQ(stack.units(), (std::vector<Range>{{0, 320}, {320, 480}, {480, 800}, {800, 960}}));
  TensorLayout vector = tensor("bias", {20}, 0, 0);
  vector.parts = {{"q", 10}, {"k", 5}, {"v", 5}};  // names for others: a vector stays together
  EXPECT_EQ(vector.units(), (std::vector<Range>{{0, 20}}));
}

TEST(Layout, NonsenseIsADefect) {
  const std::vector<Bucket> bucket{{"all", {0, 64}}};
  const auto refused = [&](const std::vector<TensorLayout>& tensors) {
    EXPECT_THROW(Layout(bucket, tensors), Error) << tensors.back().name;
  };
  const TensorLayout first = tensor("a", {20}, 0, 0);
  EXPECT_NO_THROW(Layout(bucket, {first, tensor("b", {20}, 1, 32)}));
  refused({tensor("begins late", {20}, 0, 16)});
  refused({first, tensor("overlaps", {20}, 1, 16)});
  refused({first, tensor("is not aligned", {20}, 1, 40)});
  refused({first, tensor("has the same number", {20}, 0, 32)});
  refused({first, tensor("lies outside", {40}, 1, 32)});
  refused({first, tensor("a", {20}, 1, 32)});
  TensorLayout bad = tensor("has other elements", {20}, 1, 32);
  bad.count = 21;
  refused({first, bad});
  bad = tensor("has parts of other rows", {4, 4}, 1, 32);
  bad.parts = {{"gate", 2}, {"up", 1}};
  refused({first, bad});
  bad = tensor("has parts of fewer elements", {20}, 1, 32);
  bad.parts = {{"q", 10}, {"k", 5}};
  refused({first, bad});
  bad = tensor("has units that are not aligned", {4, 4}, 1, 32);
  bad.parts = {{"gate", 2}, {"up", 2}};
  refused({first, bad});
  bad = tensor("has no grain", {4, 4}, 1, 32);
  bad.grain = 8;
  refused({first, bad});
  bad = tensor("is no stack", {4, 4}, 1, 32);
  bad.matrices = 4;
  refused({first, bad});
  EXPECT_THROW(Layout({{"all", {16, 64}}}, {first}), Error);
}

TEST(Layout, RandomOnesAreSound) {
  for (uint32_t seed = 0; seed < 200; ++seed) ASSERT_NO_THROW(random_layout(seed)) << seed;
}

}  // namespace
}  // namespace nibble
