// Tests of the settings that must not change a bit of a model's results, and of those that must.
#include <gtest/gtest.h>

#include <bit>
#include <numeric>

#include "dist/device/thread_pool.h"
#include "model/model_fixture.h"

namespace nibble::test {
namespace {

constexpr StepContext context{.seed = 7, .step = 4, .micro_batch = 2};

struct Result {
  double loss = 0;
  std::vector<float> gradients;
};

bool same(const Result& a, const Result& b) {
  return std::bit_cast<uint64_t>(a.loss) == std::bit_cast<uint64_t>(b.loss) && same_bits(a.gradients, b.gradients);
}

struct Variant {
  DType dtype;
  Recipe recipe;
  bool norms_heads = false;  // and has a bias
};

std::vector<Variant> variants() {
  Recipe read_back = nvidia();
  read_back.name = "read_back";
  read_back.linear.grad_input_w.from = Source::saved;
  read_back.linear.grad_weight_x.from = Source::saved;
  Recipe noisy = nvidia();
  noisy.name = "noisy_weights";
  noisy.linear.forward_w = {.format = Format::nvfp4, .round = Rounding::stochastic};
  noisy.linear.forward_x.round = Rounding::stochastic_published;
  return {{DType::f32, plain(Format::f32)}, {DType::bf16, plain(Format::bf16)},
          {DType::bf16, nvidia()},          {DType::f32, nvidia()},
          {DType::bf16, read_back},         {DType::bf16, noisy},
          {DType::bf16, nvidia(), true},    {DType::f32, plain(Format::f32), true}};
}

ModelConfig config_of(const Variant& variant) {
  ModelConfig config = tiny_config();
  config.dtype = variant.dtype;
  config.qk_norm = config.qkv_bias = variant.norms_heads;
  config.sequence_length = 32;
  return config;
}

constexpr LanguageModelOptions two_sequences{.sequences = 2, .sequence_length = 32, .training = true, .recompute = {}};

Result run(TestModel& test, const StepContext& step = context) {
  Result result;
  result.loss = test.forward_backward(step, 1.0F / 64);
  result.gradients = test.gradients;
  return result;
}

Result run(const Variant& variant, const LanguageModelOptions& options) {
  TestModel test(config_of(variant), variant.recipe, options);
  return run(test);
}

class Determinism : public testing::Test {
 protected:
  void TearDown() override { set_compute_threads(1); }
};

TEST_F(Determinism, RecomputeChangesNoBit) {
  for (const Variant& variant : variants()) {
    const Result none = run(variant, two_sequences);
    EXPECT_GT(norm(none.gradients), 0);
    for (const std::vector<bool>& recompute :
         {std::vector<bool>{true, true, true, true}, {false, true, true, false}, {true, false, false, false}}) {
      LanguageModelOptions options = two_sequences;
      options.recompute = recompute;
      EXPECT_TRUE(same(none, run(variant, options))) << variant.recipe.name << " " << name_of(variant.dtype);
    }
  }
}

TEST_F(Determinism, RecomputeSavesMemory) {
  const Variant variant{DType::bf16, nvidia()};
  const auto bytes = [&](const LanguageModelOptions& options) {
    const LanguageModel model(config_of(variant), variant.recipe, options);
    const std::vector<MemoryLine> lines = model.memory();
    return std::accumulate(lines.begin(), lines.end(), uint64_t{0},
                           [](uint64_t sum, const MemoryLine& line) { return sum + line.bytes; });
  };
  LanguageModelOptions all = two_sequences;
  all.recompute = {true, true, true, true};
  LanguageModelOptions some = two_sequences;
  some.recompute = {true, false, true, false};
  LanguageModelOptions inference = two_sequences;
  inference.training = false;
  EXPECT_LT(bytes(all), bytes(two_sequences));
  EXPECT_LT(bytes(some), bytes(two_sequences));
  EXPECT_LT(bytes(inference), bytes(all));
}

TEST_F(Determinism, ThreadsChangeNoBit) {
  for (const Variant& variant : variants()) {
    set_compute_threads(1);
    const Result one = run(variant, two_sequences);
    for (int threads : {2, 4}) {
      set_compute_threads(threads);
      EXPECT_TRUE(same(one, run(variant, two_sequences))) << variant.recipe.name << " " << threads;
    }
  }
}

TEST_F(Determinism, LossOfForwardIsLossOfForwardBackward) {
  for (const Variant& variant : variants()) {
    TestModel test(config_of(variant), variant.recipe, two_sequences);
    const Result training = run(test);
    EXPECT_EQ(std::bit_cast<uint64_t>(test.forward(context)), std::bit_cast<uint64_t>(training.loss));
    LanguageModelOptions inference = two_sequences;
    inference.training = false;
    TestModel evaluation(config_of(variant), variant.recipe, inference);
    EXPECT_EQ(std::bit_cast<uint64_t>(evaluation.forward(context)), std::bit_cast<uint64_t>(training.loss));
    // Passes in between do not change the next step either.
    test.logits(16, context);
    test.forward({.seed = 7, .step = 99, .micro_batch = 0});
    EXPECT_TRUE(same(training, run(test))) << variant.recipe.name;
  }
}

TEST_F(Determinism, NoiseIsKeyedBySeedStepAndMicroBatch) {
  TestModel test(config_of({DType::bf16, nvidia()}), nvidia(), two_sequences);
  const Result first = run(test);
  EXPECT_FALSE(same(first, run(test, {.seed = 8, .step = 4, .micro_batch = 2})));
  EXPECT_FALSE(same(first, run(test, {.seed = 7, .step = 5, .micro_batch = 2})));
  EXPECT_FALSE(same(first, run(test, {.seed = 7, .step = 4, .micro_batch = 3})));
  EXPECT_TRUE(same(first, run(test)));
}

// Weight noise belongs to the step: all micro-batches of a step see the same weights, whichever of them comes first.
TEST_F(Determinism, WeightNoiseIsSharedByTheMicroBatchesOfAStep) {
  Recipe recipe = plain(Format::f32);
  recipe.linear.forward_w = {.format = Format::nvfp4, .round = Rounding::stochastic};
  TestModel test(config_of({DType::f32, recipe}), recipe, two_sequences);
  const double first = test.forward({.seed = 7, .step = 4, .micro_batch = 0});
  EXPECT_EQ(first, test.forward({.seed = 7, .step = 4, .micro_batch = 1}));
  EXPECT_NE(first, test.forward({.seed = 7, .step = 5, .micro_batch = 0}));
  EXPECT_EQ(first, test.forward({.seed = 7, .step = 4, .micro_batch = 3}));
}

TEST_F(Determinism, WithoutNoiseTheStepDoesNotMatter) {
  TestModel test(config_of({DType::bf16, {}}), plain(Format::bf16), two_sequences);
  const Result first = run(test);
  EXPECT_TRUE(same(first, run(test, {.seed = 1, .step = 0, .micro_batch = 9})));
}

// Quantised copies of the weights are made again after set_weights_changed().
TEST_F(Determinism, NewWeightsAreSeen) {
  for (const Variant& variant : variants()) {
    TestModel test(config_of(variant), variant.recipe, two_sequences);
    const Result first = run(test);
    const std::vector<float> original = test.weights;
    for (float& weight : test.weights) weight *= 1.5F;
    test.bind();
    EXPECT_FALSE(same(first, run(test)));
    test.weights = original;
    test.bind();
    EXPECT_TRUE(same(first, run(test)));
  }
}

// Binding other memory is a change of the weights, also without a call of set_weights_changed().
TEST_F(Determinism, OtherMemoryIsSeen) {
  Variant variant{DType::f32, nvidia()};
  TestModel test(config_of(variant), variant.recipe, two_sequences);
  const double first = test.forward(context);
  std::vector<float> other = test.weights;
  for (float& weight : other) weight *= 1.5F;
  const int64_t size = static_cast<int64_t>(other.size());
  test.model.bind(tensor_of(std::span(other), {size}), Tensor());
  EXPECT_NE(test.forward(context), first);
}

}  // namespace
}  // namespace nibble::test
