// Tests of the parameter table, the normal quantile and the initial values.
#include "model/layers/parameter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "dist/device/thread_pool.h"
#include "model/layers/normal_quantile.h"
#include "model/model_fixture.h"

namespace nibble::test {
namespace {

uint64_t fnv_hash(const std::vector<float>& values) {
  uint64_t hash = 0xCBF29CE484222325U;
  for (float value : values) hash = (hash ^ std::bit_cast<uint32_t>(value)) * 0x100000001B3U;
  return hash;
}

ParameterTable sample_table() {
  ParameterTable table;
  table.add({.name = "a.weight", .shape = {37, 11}, .decay = true, .init_std = 0.02});
  table.add({.name = "norm.weight", .shape = {20}, .use = TensorUse::vector, .initialization = Initialization::ones});
  table.add({.name = "b.weight", .shape = {300, 350}, .decay = true, .init_std = 0.5});
  return table;
}

std::vector<float> initial(const ParameterTable& table, uint64_t seed) {
  std::vector<float> values(table.flat_size(), -1);
  initialize(table, seed, 0, table.flat_size(), values.data());
  return values;
}

TEST(ParameterTable, OffsetsAreMultiplesOf16AndViewsHaveTheirShape) {
  const ParameterTable table = sample_table();
  EXPECT_EQ(table[0].offset, 0U);
  EXPECT_EQ(table[1].offset, 416U);  // 407 rounded up
  EXPECT_EQ(table[2].offset, 448U);  // 436 rounded up
  EXPECT_EQ(table.flat_size(), 105456U);
  std::vector<float> flat(table.flat_size());
  const Tensor view = table.view(tensor_of(std::span(flat), {105456}), 2);
  EXPECT_EQ(view.as<float>(), flat.data() + 448);
  EXPECT_EQ(view.size(0), 300);
  EXPECT_EQ(view.size(1), 350);
}

TEST(ParameterTable, WeightsOfSeveralWidthsLieInABufferOfBytes) {
  ParameterTable table;
  table.add({.name = "a", .shape = {3, 5}});
  table.add({.name = "b", .shape = {7}, .use = TensorUse::vector, .dtype = DType::f32});
  table.add({.name = "c", .shape = {2, 8}});
  Arena arena("weights");
  Tensor weights;
  std::vector<Arena*> arenas{&arena};
  planned(arenas, [&] { weights = allocate_weights(arena, table.layout()); });
  EXPECT_EQ(weights.dtype(), DType::u8);
  EXPECT_EQ(weights.bytes(), 2U * 16 + 4U * 16 + 2U * 16);
  const auto* const bytes = weights.as<uint8_t>();
  EXPECT_EQ(table.view(weights, 0).data(), bytes);
  EXPECT_EQ(table.view(weights, 1).as<float>(), reinterpret_cast<const float*>(bytes + 32));
  EXPECT_EQ(table.view(weights, 1).elements(), 7);
  EXPECT_EQ(table.view(weights, 2).as<BFloat16>(), reinterpret_cast<const BFloat16*>(bytes + 96));
  EXPECT_EQ(table.view(weights, 2).size(1), 8);
}

TEST(ParameterTable, BucketsAreEmbeddingBlocksAndHead) {
  ModelConfig config = tiny_config();
  config.pattern = "*-";
  const LanguageModel model(config, plain(Format::f32), {.sequence_length = 16, .training = false});
  const Layout layout = model.parameters().layout();
  ASSERT_EQ(layout.buckets().size(), 4U);
  EXPECT_EQ(layout.buckets()[0].name, "embedding");
  EXPECT_EQ(layout.buckets()[2].name, "blocks.1");
  EXPECT_EQ(layout.buckets()[3].name, "head");
  EXPECT_EQ(layout.elements(), model.parameters().flat_size());
  const TensorLayout* const qkv = layout.find("blocks.0.attention.qkv.weight");
  ASSERT_NE(qkv, nullptr);
  EXPECT_EQ(qkv->bucket, 1U);
  EXPECT_EQ(qkv->width, 4);
  ASSERT_EQ(qkv->parts.size(), 3U);
  EXPECT_EQ(qkv->parts[1].name, "k");
  EXPECT_EQ(qkv->parts[1].rows, config.kv_heads * config.head_dim);
  EXPECT_EQ(layout.find("blocks.1.norm.weight")->use, TensorUse::vector);
  EXPECT_EQ(layout.find("head.weight")->use, TensorUse::head);
}

TEST(ParameterTable, NamesShapesAndOrderOfAModel) {
  ModelConfig config = tiny_config();
  config.pattern = "*-";
  const LanguageModel model(config, plain(Format::f32), {.sequence_length = 16, .training = false});
  struct Expected {
    const char* name;
    std::vector<int64_t> shape;
    double init_std;
    bool decay;
  };
  const double residual = 0.2 / std::sqrt(2.0);
  const std::vector<Expected> expected = {{"embedding.weight", {48, 32}, 0.2, false},
                                          {"blocks.0.norm.weight", {32}, 0, false},
                                          {"blocks.0.attention.qkv.weight", {96, 32}, 0.2, true},
                                          {"blocks.0.attention.output.weight", {32, 48}, residual, true},
                                          {"blocks.1.norm.weight", {32}, 0, false},
                                          {"blocks.1.mlp.gate_up.weight", {160, 32}, 0.2, true},
                                          {"blocks.1.mlp.down.weight", {32, 80}, residual, true},
                                          {"norm.weight", {32}, 0, false},
                                          {"head.weight", {48, 32}, 0.2, false}};
  const std::vector<Parameter>& parameters = model.parameters().parameters();
  ASSERT_EQ(parameters.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(parameters[i].name, expected[i].name);
    EXPECT_EQ(parameters[i].shape, expected[i].shape) << expected[i].name;
    EXPECT_DOUBLE_EQ(parameters[i].init_std, expected[i].init_std) << expected[i].name;
    EXPECT_EQ(parameters[i].decay, expected[i].decay) << expected[i].name;
    EXPECT_EQ(parameters[i].initialization == Initialization::ones, expected[i].shape.size() == 1);
    EXPECT_EQ(parameters[i].tensor_id, i);
  }
}

TEST(ParameterTable, BiasesAndNormsOfHeadsStandBehindTheirMatrix) {
  ModelConfig config = tiny_config();
  config.pattern = "*";
  config.qkv_bias = config.qk_norm = true;
  const LanguageModel model(config, plain(Format::f32), {.sequence_length = 16, .training = false});
  const Layout layout = model.parameters().layout();
  EXPECT_EQ(layout.tensors()[2].name, "blocks.0.attention.qkv.weight");
  const std::pair<const char*, int64_t> expected[] = {{"blocks.0.attention.qkv.bias", 96},
                                                      {"blocks.0.attention.q_norm.weight", 12},
                                                      {"blocks.0.attention.k_norm.weight", 12}};
  for (size_t i = 0; i < std::size(expected); ++i) {
    const TensorLayout& tensor = layout.tensors()[3 + i];
    EXPECT_EQ(tensor.name, expected[i].first);
    EXPECT_EQ(tensor.shape, std::vector<int64_t>{expected[i].second});
    EXPECT_EQ(tensor.use, TensorUse::vector);
    EXPECT_FALSE(tensor.decay);
  }
  const std::vector<TensorPart>& parts = layout.find("blocks.0.attention.qkv.bias")->parts;
  ASSERT_EQ(parts.size(), 3U);
  EXPECT_EQ(parts[1].name, "k");
  EXPECT_EQ(parts[1].rows, 24);
  // Biases begin with zero, and weights of norms with one.
  const std::vector<float> values = initial(model.parameters(), 5);
  for (const auto& [name, elements] : expected) {
    const TensorLayout& tensor = *layout.find(name);
    const auto begin = values.begin() + static_cast<int64_t>(tensor.offset);
    const float value = tensor.parts.empty() ? 1.0F : 0.0F;
    EXPECT_EQ(std::count(begin, begin + elements, value), elements) << name;
  }
}

// The library's erfc in long double, which is accurate to 1e-18, decides.
TEST(NormalQuantile, InvertsTheDistribution) {
  const auto distribution = [](long double z) { return std::erfc(-z / std::sqrt(2.0L)) / 2; };
  for (double p = 0x1p-33; p < 0.5; p *= 1.0037) {
    const double z = normal_quantile(p);
    // dp/dz is the density: one relative error in z changes p by that much, and there is twice that for the rounding of
    // p.
    const long double density = std::exp(-0.5L * z * z) / std::sqrt(2 * std::acos(-1.0L));
    const long double tolerance = 1e-15L * std::fabs(z) * density + 1e-16L * p + 1e-18L;
    ASSERT_NEAR(static_cast<double>((distribution(z) - p) / tolerance), 0.0, 1.0) << p;
    ASSERT_DOUBLE_EQ(normal_quantile(1 - p), -normal_quantile(1 - (1 - p))) << p;
  }
  EXPECT_EQ(normal_quantile(0.5), 0.0);
}

TEST(NormalQuantile, LogarithmWithinTwoUlp) {
  for (double x = 1e-12; x < 1e3; x *= 1.00091) {
    const double expected = std::log(x);
    ASSERT_NEAR(log_f64(x), expected, 2 * std::fabs(expected) * 0x1p-52) << x;
  }
  EXPECT_EQ(log_f64(1.0), 0.0);
}

TEST(Initialize, EverySplitGivesTheSameBits) {
  const ParameterTable table = sample_table();
  const std::vector<float> whole = initial(table, 5);
  for (uint64_t width : {uint64_t{1000}, uint64_t{16}, uint64_t{77777}, uint64_t{3001}}) {
    std::vector<float> pieces(table.flat_size(), -1);
    for (uint64_t begin = 0; begin < pieces.size(); begin += width) {
      initialize(table, 5, begin, std::min<uint64_t>(begin + width, pieces.size()), pieces.data() + begin);
    }
    EXPECT_TRUE(same_bits(whole, pieces)) << width;
  }
  set_compute_threads(3);
  EXPECT_TRUE(same_bits(whole, initial(table, 5)));
  set_compute_threads(1);
}

TEST(Initialize, GapsAreZeroAndGainsOne) {
  const ParameterTable table = sample_table();
  const std::vector<float> values = initial(table, 5);
  for (size_t i = 407; i < 416; ++i) EXPECT_EQ(values[i], 0.0F);
  for (size_t i = 416; i < 436; ++i) EXPECT_EQ(values[i], 1.0F);
  for (size_t i = 436; i < 448; ++i) EXPECT_EQ(values[i], 0.0F);
}

// The numbers are fixed: initial weights never change, on any machine, in any version. Python computed the hash with
// its own Philox and statistics.NormalDist.inv_cdf.
TEST(Initialize, GoldenBits) {
  const std::vector<float> values = initial(sample_table(), 1234);
  EXPECT_EQ(fnv_hash(values), 0x7994A96DCFA583C9U);
}

TEST(Initialize, IsNormal) {
  const ParameterTable table = sample_table();
  const std::vector<float> values = initial(table, 9);
  const std::span<const float> sample = part(values, table[2]);
  const double n = static_cast<double>(sample.size());
  double sum = 0;
  double squares = 0;
  for (float value : sample) {
    sum += value / 0.5;
    squares += (value / 0.5) * (value / 0.5);
  }
  EXPECT_NEAR(sum / n, 0, 4 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 4 * std::sqrt(2 / n));

  // A normal sample exceeds the Kolmogorov-Smirnov bound 1.95 / sqrt(n) once in a thousand.
  std::vector<double> sorted(sample.begin(), sample.end());
  std::sort(sorted.begin(), sorted.end());
  double distance = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    const double expected = std::erfc(-sorted[i] / 0.5 / std::sqrt(2.0)) / 2;
    distance = std::max({distance, static_cast<double>(i + 1) / n - expected, expected - static_cast<double>(i) / n});
  }
  EXPECT_LT(distance, 1.95 / std::sqrt(n));
}

TEST(Initialize, SeedAndTensorMatter) {
  ParameterTable table;
  table.add({.name = "a", .shape = {64, 16}, .decay = true, .init_std = 1});
  table.add({.name = "b", .shape = {64, 16}, .decay = true, .init_std = 1});
  const std::vector<float> one = initial(table, 1);
  const std::vector<float> two = initial(table, 2);
  const double bound = 4 / std::sqrt(1024.0);
  EXPECT_LT(std::fabs(cosine(part(one, table[0]), part(one, table[1]))), bound);
  EXPECT_LT(std::fabs(cosine(part(one, table[0]), part(two, table[0]))), bound);
}

}  // namespace
}  // namespace nibble::test
