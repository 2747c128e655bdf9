// Tests that dequantize_weights() returns the weights as the forward passes use them, for any range of the flat buffer.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/model_fixture.h"
#include "trainer/state/oscillation_state.h"

namespace nibble::test {
namespace {

TEST(DequantizeWeights, AreThoseOfTheQuantiserForEveryRange) {
  Recipe recipe = nvidia();
  recipe.high_precision.push_back({.layers = {.match = "blocks.1.mlp.down"}, .format = Format::bf16});
  ModelConfig config = tiny_config();
  TestModel test(config, recipe, {.sequences = 2, .sequence_length = 16});
  constexpr StepContext context{.seed = 3, .step = 7};

  const float nothing = std::numeric_limits<float>::quiet_NaN();
  const uint64_t size = test.model.parameters().flat_size();
  std::vector<float> expected(size, nothing);
  int quantised = 0;
  for (const Parameter& parameter : test.model.parameters().parameters()) {
    const bool linear =
        std::ranges::any_of(test.model.linears(), [&](const Linear* layer) { return layer->name() == parameter.name; });
    if (!linear || parameter.name == "head.weight" || parameter.name == "blocks.1.mlp.down.weight") continue;
    ++quantised;
    const OperandSpec& spec = recipe.linear.forward_w;
    Arena arena("operand");
    allocate_operand(arena, spec, DType::f32, parameter.shape[0], parameter.shape[1]);
    arena.commit();
    const QuantizedTensor storage = allocate_operand(arena, spec, DType::f32, parameter.shape[0], parameter.shape[1]);
    const Tensor weight(test.weights.data() + parameter.offset, DType::f32, {parameter.shape[0], parameter.shape[1]});
    dequantize(quantize({.source = weight, .spec = spec}, storage),
               Tensor(expected.data() + parameter.offset, DType::f32, {parameter.shape[0], parameter.shape[1]}));
  }
  ASSERT_EQ(quantised, 7);

  const auto range = [&](uint64_t begin, uint64_t end) {
    std::vector<float> values(end - begin);
    dequantize_weights(test.model, begin, end, values, context);
    return values;
  };
  EXPECT_TRUE(same_bits(range(0, size), expected));
  for (uint64_t begin = 0; begin < size; begin += 1237) {
    for (const uint64_t count : {uint64_t{0}, uint64_t{1}, uint64_t{31}, uint64_t{500}, uint64_t{4099}}) {
      const uint64_t end = std::min(size, begin + count);
      const auto from = expected.begin() + static_cast<int64_t>(begin);
      ASSERT_TRUE(same_bits(range(begin, end), {from, from + static_cast<int64_t>(end - begin)}))
          << begin << " " << end;
    }
  }
  // The values follow a change of the weights.
  for (float& weight : test.weights) weight *= 2;
  test.bind();
  for (float& value : expected) value *= 2;
  EXPECT_TRUE(same_bits(range(0, size), expected));
}

// Retained channels are not in four bits, so they have no value.
TEST(DequantizeWeights, HaveNoValueInRetainedChannels) {
  Recipe recipe = nvidia();
  recipe.outliers = OutlierRule{};
  TestModel test(tiny_config(), recipe, {.sequences = 2, .sequence_length = 16});
  std::vector<int32_t> channels(32);
  for (int32_t i = 0; i < 32; ++i) channels[static_cast<size_t>(i)] = 2 * i + 5;
  int retaining = 0;
  for (const Linear* layer : test.model.linears()) {
    // Only the layers with 80 input channels are large enough to retain 32.
    EXPECT_EQ(layer->outlier_count(), layer->features_in() == 80 ? 32 : 0) << layer->name();
    retaining += layer->outlier_count() != 0 ? 1 : 0;
  }
  ASSERT_EQ(retaining, 2);
  const uint64_t size = test.model.parameters().flat_size();
  std::vector<float> before(size);
  std::vector<float> after(size);
  dequantize_weights(test.model, 0, size, before, {});
  for (Linear* layer : test.model.linears()) {
    if (layer->outlier_count() != 0) layer->set_outlier_channels(channels);
  }
  dequantize_weights(test.model, 0, size, after, {});
  for (const Parameter& parameter : test.model.parameters().parameters()) {
    const bool retains = parameter.shape.back() == 80;
    for (uint64_t i = 0; i < parameter.count; ++i) {
      const uint64_t channel = i % static_cast<uint64_t>(parameter.shape.back());
      const bool retained = retains && channel >= 5 && channel % 2 == 1 && channel < 5 + 64;
      ASSERT_EQ(std::isnan(after[parameter.offset + i]), retained || std::isnan(before[parameter.offset + i])) << i;
    }
  }
}

}  // namespace
}  // namespace nibble::test
