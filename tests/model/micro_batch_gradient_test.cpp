// The gradient of a micro-batch is formed from zero and then added: what several micro-batches leave in one buffer is
// the FP32 sum, from left to right, of what each alone would have left in a buffer of zeros. Bit for bit, for every
// parameter of every kind of block.
#include <gtest/gtest.h>

#include <bit>
#include <utility>

#include "dist/device/thread_pool.h"
#include "model/model_fixture.h"

namespace nibble::test {
namespace {

constexpr int64_t sequences = 2;
constexpr int64_t length = 32;
constexpr size_t tokens_of_micro_batch = static_cast<size_t>(sequences * length);
constexpr uint32_t micro_batches = 3;

Recipe all_nvfp4() {
  Recipe recipe = nvidia();
  recipe.name = "nvfp4, head too";
  recipe.high_precision.clear();
  return recipe;
}

Recipe read_back() {
  Recipe recipe = nvidia();
  recipe.name = "nvfp4, read back";
  recipe.linear.grad_input_w.from = Source::saved;
  recipe.linear.grad_weight_x.from = Source::saved;
  return recipe;
}

Recipe with_outliers(Recipe recipe) {
  recipe.name += ", outliers";
  recipe.outliers = OutlierRule{.share = 0.3};
  return recipe;
}

struct Case {
  DType dtype = DType::bf16;
  Recipe recipe = {};
  bool tied_head = false;
  bool chunks = false;  // of the head
  bool documents = false;
  bool norms_heads = false;  // and has a bias
};

std::string name_of(const Case& test) {
  return test.recipe.name + (test.dtype == DType::f32 ? ", fp32 model" : ", bf16 model") +
         (test.tied_head ? ", tied" : ", untied") + (test.chunks ? ", head in chunks" : ", whole head") +
         (test.documents ? ", documents" : "") + (test.norms_heads ? ", normalised heads" : "");
}

std::vector<Case> cases() {
  std::vector<Case> all;
  const std::pair<DType, Recipe> recipes[] = {{DType::f32, plain(Format::f32)},
                                              {DType::bf16, plain(Format::bf16)},
                                              {DType::bf16, nvidia()},
                                              {DType::f32, nvidia()},
                                              {DType::bf16, with_outliers(nvidia())},
                                              {DType::bf16, with_outliers(read_back())},
                                              {DType::bf16, with_outliers(all_nvfp4())}};
  for (const auto& [dtype, recipe] : recipes) {
    for (const bool tied : {false, true}) {
      for (const bool chunks : {false, true}) {
        const bool quantised_head = recipe.high_precision.empty() && recipe.name.starts_with("nvfp4");
        if (chunks && quantised_head) continue;  // such a head has one chunk
        all.push_back({dtype, recipe, tied, chunks, /*documents=*/tied != chunks});
      }
    }
  }
  for (const auto& [dtype, recipe] : {recipes[0], recipes[2]}) {
    all.push_back({.dtype = dtype, .recipe = recipe, .documents = true, .norms_heads = true});
  }
  return all;
}

// Keeps each bucket's gradients as they are when the model says that they are complete.
class CopyingExchange final : public LocalExchange {
 public:
  explicit CopyingExchange(TestModel& test) : left(test.gradients.size()), seen(left), test_(test) {
    test.bind_to(*this);
  }
  bool communicates() const override { return true; }
  void complete(uint32_t bucket) override {
    const Range range = test_.model.parameters().buckets()[bucket].range;
    EXPECT_EQ(range.end, left) << "from the last to the first";
    std::copy(test_.gradients.begin() + static_cast<int64_t>(range.begin),
              test_.gradients.begin() + static_cast<int64_t>(range.end),
              seen.begin() + static_cast<int64_t>(range.begin));
    left = range.begin;
  }

  uint64_t left;
  std::vector<float> seen;

 private:
  TestModel& test_;
};

class MicroBatchGradient {
 public:
  explicit MicroBatchGradient(const Case& wanted, bool sums_micro_batches = true)
      : case_(wanted), test_(config(), wanted.recipe, options(wanted, sums_micro_batches)) {
    for (Linear* linear : test_.model.linears()) {
      std::vector<int32_t> channels;
      for (int64_t i = 0; i < linear->outlier_count(); ++i) channels.push_back(static_cast<int32_t>(2 * i + 1));
      linear->set_outlier_channels(channels);
      retains_ = retains_ || linear->outlier_count() > 0;
    }
  }

  // Adds the gradient of a micro-batch to the bound gradients.
  void add(uint32_t micro_batch) {
    const int64_t vocabulary = test_.model.config().vocab_size;
    // Few words, so that the sums of their gradients are inexact.
    std::vector<int32_t> tokens = random_tokens(tokens_of_micro_batch, 8, 100 + micro_batch);
    std::vector<int32_t> targets = random_tokens(tokens_of_micro_batch, vocabulary, 1000 + micro_batch);
    std::vector<int32_t> starts(tokens_of_micro_batch);
    for (size_t i = 0; i < starts.size(); ++i) starts[i] = i % static_cast<size_t>(length) < 11 ? 0 : 11;
    const auto view = [](std::vector<int32_t>& values) { return tensor_of(std::span(values), {sequences, length}); };
    test_.model.forward_backward(view(tokens), view(targets), {.seed = 3, .step = 1, .micro_batch = micro_batch},
                                 1.0F / 64, case_.documents ? view(starts) : Tensor());
  }
  std::vector<float> alone(uint32_t micro_batch) {
    clear();
    add(micro_batch);
    return test_.gradients;
  }
  std::vector<float> together() {
    clear();
    for (uint32_t micro_batch = 0; micro_batch < micro_batches; ++micro_batch) add(micro_batch);
    return test_.gradients;
  }
  // Returns what together() leaves, as each part was when the last micro-batch announced it.
  std::vector<float> announced() {
    clear();
    for (uint32_t micro_batch = 0; micro_batch + 1 < micro_batches; ++micro_batch) add(micro_batch);
    CopyingExchange exchange(test_);
    add(micro_batches - 1);
    test_.bind();
    EXPECT_EQ(exchange.left, 0U);
    return exchange.seen;
  }
  const std::vector<Parameter>& parameters() const { return test_.model.parameters().parameters(); }
  bool retains_outliers() const { return retains_; }

 private:
  static ModelConfig config_of(const Case& wanted) {
    ModelConfig config = tiny_config();
    config.pattern = "*-";
    config.hidden_size = 96;
    config.head_dim = 16;
    config.sequence_length = length;
    config.dtype = wanted.dtype;
    config.tied_head = wanted.tied_head;
    config.qk_norm = config.qkv_bias = wanted.norms_heads;
    return config;
  }
  ModelConfig config() const { return config_of(case_); }
  static LanguageModelOptions options(const Case& wanted, bool sums_micro_batches) {
    return {.sequences = sequences,
            .sequence_length = length,
            .document_mask = wanted.documents,
            .head_chunk_tokens = wanted.chunks ? 48 : 0,
            .sums_micro_batches = sums_micro_batches};
  }
  void clear() { std::fill(test_.gradients.begin(), test_.gradients.end(), 0.0F); }

  Case case_;
  TestModel test_;
  bool retains_ = false;
};

class MicroBatchGradientTest : public testing::Test {
 protected:
  void TearDown() override { set_compute_threads(1); }
};

TEST_F(MicroBatchGradientTest, IsFormedFromZeroAndThenAdded) {
  for (const Case& test : cases()) {
    SCOPED_TRACE(name_of(test));
    MicroBatchGradient model(test);
    EXPECT_EQ(model.retains_outliers(), test.recipe.outliers.has_value());
    std::vector<float> sum = model.alone(0);
    for (uint32_t micro_batch = 1; micro_batch < micro_batches; ++micro_batch) {
      const std::vector<float> next = model.alone(micro_batch);
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += next[i];
    }
    for (const int threads : {1, 3}) {
      set_compute_threads(threads);
      MicroBatchGradient threaded(test);
      const std::vector<float> together = threaded.together();
      for (const Parameter& parameter : model.parameters()) {
        const std::span<const float> expected = part(sum, parameter);
        const std::span<const float> actual = part(together, parameter);
        int64_t differ = 0;
        for (size_t i = 0; i < expected.size(); ++i) {
          differ += std::bit_cast<uint32_t>(expected[i]) != std::bit_cast<uint32_t>(actual[i]) ? 1 : 0;
        }
        EXPECT_EQ(differ, 0) << parameter.name << " of " << expected.size() << " elements, " << threads << " threads";
        EXPECT_GT(norm(actual), 0) << parameter.name;
      }
    }
    set_compute_threads(1);
  }
}

TEST_F(MicroBatchGradientTest, IsCompleteWhenItIsAnnounced) {
  for (const Case& test : cases()) {
    SCOPED_TRACE(name_of(test));
    EXPECT_TRUE(same_bits(MicroBatchGradient(test).announced(), MicroBatchGradient(test).together()));
  }
}

// A model for one micro-batch at a time has no memory for a micro-batch's own sums, and computes the same in a buffer
// of zeros.
TEST_F(MicroBatchGradientTest, HasTheBitsOfAModelForSingleMicroBatches) {
  for (const Case& test : cases()) {
    SCOPED_TRACE(name_of(test));
    MicroBatchGradient several(test);
    MicroBatchGradient single(test, /*sums_micro_batches=*/false);
    EXPECT_TRUE(same_bits(several.alone(1), single.alone(1)));
  }
}

}  // namespace
}  // namespace nibble::test
