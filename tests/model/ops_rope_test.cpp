// Compares rotary position embedding with FP64, and tests its algebra.
#include "model/ops/rope.h"

#include <cmath>

#include "model/ops_support.h"

namespace nibble {
namespace {

using namespace test;

constexpr size_t sequences = 2;
constexpr size_t length = 41;
constexpr size_t query_heads = 4;
constexpr size_t kv_heads = 2;
constexpr size_t head_dim = 20;
constexpr size_t width = (query_heads + 2 * kv_heads) * head_dim;
constexpr double theta = 500;

template <class T>
std::vector<T> rotated(const Values& values, bool inverse = false) {
  auto qkv = stored<T>(values);
  // The table is longer than the sequence, because a model's table serves shorter sequences too.
  std::vector<float> table((length + 3) * head_dim);
  const Tensor table_view = view(table, {length + 3, head_dim / 2, 2});
  fill_rope_table({.theta = theta}, table_view);
  rope({view(qkv, {sequences * length, width}), table_view, length, query_heads, kv_heads, head_dim, inverse});
  return qkv;
}

Values inputs() {
  return random_values(1, sequences * length * width);
}

// Table entries are off by one roundoff, and each result is two products and a sum of numbers up to 1.
constexpr double tolerance = 6 * unit_roundoff;

TEST(Rope, AgreesWithTheReference) {
  const Values qkv = inputs();
  expect_near(widened(rotated<float>(qkv)), reference::rope(qkv, length, query_heads, kv_heads, head_dim, theta),
              tolerance, "rotated");
  expect_near(widened(rotated<float>(qkv, true)),
              reference::rope(qkv, length, query_heads, kv_heads, head_dim, theta, -1), tolerance, "rotated back");
}

TEST(Rope, KeepsValuesAndFirstPositions) {
  const Values before = inputs();
  const Values after = widened(rotated<float>(before));
  for (size_t at = 0; at < before.size(); ++at) {
    const bool value_head = at % width >= (query_heads + kv_heads) * head_dim;
    const bool first_position = at / width % length == 0;
    if (value_head || first_position) {
      ASSERT_EQ(after[at], before[at]) << at;
    }
  }
}

TEST(Rope, InverseRestores) {
  const Values before = inputs();
  Values there = widened(rotated<float>(before));
  expect_near(widened(rotated<float>(there, true)), before, 2 * tolerance, "restored");
}

TEST(Rope, KeepsNormsAndRelativePositions) {
  const Values before = inputs();
  const Values after = widened(rotated<float>(before));
  for (size_t head = 0; head < before.size() / head_dim; ++head) {
    double old_square = 0;
    double new_square = 0;
    for (size_t i = head * head_dim; i < (head + 1) * head_dim; ++i) {
      old_square += before[i] * before[i];
      new_square += after[i] * after[i];
    }
    ASSERT_NEAR(new_square, old_square, 2 * tolerance * static_cast<double>(head_dim)) << head;
  }
  // The same query and key at the same distance have the same score at all positions.
  Values same(before.size());
  for (size_t at = 0; at < same.size(); ++at) same[at] = before[at % width];
  const Values moved = widened(rotated<float>(same));
  auto score = [&](size_t query, size_t key) {
    double sum = 0;
    for (size_t i = 0; i < head_dim; ++i) {
      sum += moved[query * width + i] * moved[key * width + query_heads * head_dim + i];
    }
    return sum;
  };
  for (size_t shift = 1; shift < length - 7; ++shift) {
    ASSERT_NEAR(score(7 + shift, shift), score(7, 0), 4 * tolerance * static_cast<double>(head_dim)) << shift;
  }
}

// A rotation is linear, so the gradient of <c, rope(x)> is the inverse rotation of c, which backward calls.
TEST(Rope, InverseIsTheGradient) {
  const Values upstream = random_values(2, sequences * length * width);
  const Values x = inputs();
  const double forward = inner_product(upstream, widened(rotated<float>(x)));
  const double backward = inner_product(widened(rotated<float>(upstream, true)), x);
  EXPECT_NEAR(forward, backward, 2 * tolerance * static_cast<double>(x.size()));
  EXPECT_GT(std::abs(forward), 1) << "the numbers must say something";
}

// The frequencies of Llama 3.1 8B as transformers 5.24 computes them in FP32 (ROPE_INIT_FUNCTIONS["llama3"]): kept,
// mixed, and divided by 8.
TEST(Rope, ScalesFrequenciesAsLlama3) {
  constexpr int64_t half = 64;
  const std::pair<size_t, double> expected[] = {{0, 1},
                                                {1, 0.814617217},
                                                {28, 0.00321144611},
                                                {29, 0.00216657063},
                                                {30, 0.00137189368},
                                                {34, 0.00017850779},
                                                {35, 9.55621217e-05},
                                                {36, 7.78465546e-05},
                                                {63, 3.06892588e-07}};
  std::vector<float> table(2 * half * 2);
  fill_rope_table({.theta = 500'000, .scaling_factor = 8}, view(table, {2, half, 2}));
  for (const auto& [index, frequency] : expected) {
    const double cosine = static_cast<double>(table[(half + index) * 2]);
    const double sine = static_cast<double>(table[(half + index) * 2 + 1]);
    EXPECT_NEAR(std::atan2(sine, cosine) / frequency, 1, 1e-6) << index;
  }
  // Without a factor the other numbers do not matter.
  std::vector<float> plain(table.size());
  std::vector<float> other(table.size());
  fill_rope_table({.theta = 500'000}, view(plain, {2, half, 2}));
  fill_rope_table({.theta = 500'000, .high_frequency_factor = 2, .original_length = 16}, view(other, {2, half, 2}));
  EXPECT_EQ(plain, other);
  EXPECT_NE(plain, table);
}

TEST(Rope, Bf16IsFp32RoundedOnce) {
  expect_rounded(rotated<BFloat16>(inputs()), rotated<float>(inputs()), "rotated");
}

TEST(Rope, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] { return bytes_of(rotated<BFloat16>(inputs())); });
}

TEST(Rope, RefusesATableThatDoesNotFit) {
  std::vector<float> qkv(length * width);
  std::vector<float> table(length * head_dim);
  const Tensor qkv_view = view(qkv, {length, width});
  const Tensor short_table = view(table, {length, head_dim / 2, 2}).slice(0, length - 1);
  EXPECT_THROW(rope({qkv_view, short_table, length, query_heads, kv_heads, head_dim}), Error);
  std::vector<float> wide(2 * length * head_dim);
  const Tensor wide_table = view(wide, {length, head_dim, 2});
  EXPECT_THROW(rope({qkv_view, wide_table, length, query_heads, kv_heads, head_dim}), Error);
}

}  // namespace
}  // namespace nibble
