// Compares gradients of many micro-batches, of BF16 models, with the FP64 sum of the micro-batches' own gradients. The
// error stays within that of FP32 sums, far below BF16's epsilon, for all parameters, also embedding and head, tied or
// not.
#include <gtest/gtest.h>

#include <limits>

#include "dist/owned_vector.h"
#include "dist/ranks/self_communicator.h"
#include "dist/zero/tree_reduction.h"
#include "model/model_fixture.h"

namespace nibble::test {
namespace {

constexpr uint32_t micro_batches = 48;
constexpr int64_t sequences = 2;
constexpr int64_t length = 16;

// A sum of n terms in FP32 is off by less than n 2^-24 times the sum of their magnitudes. The terms are the
// micro-batches and, within one and for each element, its tokens; if the embedding is tied to the head, each token has
// two. (The terms of the tokens may cancel a little within a micro-batch, whose sum is the measure; but roundings do
// not all have one sign either.)
constexpr double terms = micro_batches * (2.0 * sequences * length + 1);
constexpr double tolerance = terms / (1 << 24);
constexpr double bf16_epsilon = 1.0 / 256;
static_assert(tolerance < bf16_epsilon / 16);

struct Case {
  const char* name;
  bool tied_head;
  bool quantised;
};

class GradientAccumulation : public testing::TestWithParam<Case> {
 protected:
  GradientAccumulation() : test_(config(), recipe(), {.sequences = sequences, .sequence_length = length}) {}

  static ModelConfig config() {
    ModelConfig config = tiny_config();
    config.head_dim = 16;
    config.dtype = DType::bf16;
    config.tied_head = GetParam().tied_head;
    return config;
  }
  static Recipe recipe() { return GetParam().quantised ? nvidia() : plain(Format::bf16); }

  // Adds the gradient of a micro-batch to the bound gradients.
  void add(uint32_t micro_batch) {
    const auto count = static_cast<size_t>(sequences * length);
    std::vector<int32_t> tokens = random_tokens(count, config().vocab_size, 100 + micro_batch);
    std::vector<int32_t> targets = random_tokens(count, config().vocab_size, 1000 + micro_batch);
    test_.model.forward_backward(tensor_of(std::span(tokens), {sequences, length}),
                                 tensor_of(std::span(targets), {sequences, length}),
                                 {.seed = 3, .step = 1, .micro_batch = micro_batch}, 1.0F / 64);
  }

  // Returns the gradient of each micro-batch alone.
  std::vector<std::vector<float>> alone() {
    std::vector<std::vector<float>> gradients;
    for (uint32_t micro_batch = 0; micro_batch < micro_batches; ++micro_batch) {
      std::fill(test_.gradients.begin(), test_.gradients.end(), 0.0F);
      add(micro_batch);
      gradients.push_back(test_.gradients);
    }
    return gradients;
  }

  // Sums as a training step does: left to right inside groups, a tree over the groups.
  std::vector<float> accumulated(uint32_t group_size) {
    SelfCommunicator self;
    const size_t size = test_.gradients.size();
    const OwnedVector partition(size, 1);
    Arena arena("gradients");
    const uint64_t groups = micro_batches / group_size;
    const Schedule schedule(MicroBatchGroups::of_count(micro_batches, groups), /*lanes=*/1, Schedule::Order::rows);
    TreeReduction measure(arena, self, partition, schedule);
    arena.commit();
    TreeReduction reduction(arena, self, partition, schedule);
    std::vector<BFloat16> weights(test_.weights.size());
    for (size_t i = 0; i < weights.size(); ++i) weights[i] = bf16_nearest(test_.weights[i]);
    for (uint32_t micro_batch = 0; micro_batch < micro_batches; ++micro_batch) {
      const std::span<float> leaf = reduction.begin_slot().first(size);
      test_.model.bind(tensor_of(std::span(weights), {static_cast<int64_t>(size)}),
                       tensor_of(leaf, {static_cast<int64_t>(size)}));
      add(micro_batch);
      reduction.end_slot();
    }
    const std::span<float> sum = reduction.reduce_scatter();
    return {sum.begin(), sum.begin() + static_cast<std::ptrdiff_t>(size)};
  }

  // Returns the sum that is rounded to BF16 after each micro-batch.
  static std::vector<float> rounded_between(const std::vector<std::vector<float>>& gradients) {
    std::vector<float> sum(gradients.front().size());
    for (const std::vector<float>& gradient : gradients) {
      for (size_t i = 0; i < sum.size(); ++i) sum[i] = to_float(bf16_nearest(sum[i] + gradient[i]));
    }
    return sum;
  }

  // Returns |sum - FP64 sum| relative to the summed magnitudes, both as norms over a parameter.
  static double error_of(const std::vector<float>& sum, const std::vector<std::vector<float>>& gradients,
                         const Parameter& parameter) {
    double error = 0;
    double scale = 0;
    for (uint64_t i = parameter.offset; i < parameter.offset + parameter.count; ++i) {
      double exact = 0;
      double magnitude = 0;
      for (const std::vector<float>& gradient : gradients) {
        exact += gradient[i];
        magnitude += std::fabs(static_cast<double>(gradient[i]));
      }
      error += (sum[i] - exact) * (sum[i] - exact);
      scale += magnitude * magnitude;
    }
    return std::sqrt(error / scale);
  }

  TestModel test_;
};

TEST_P(GradientAccumulation, IsInFp32ForEveryParameter) {
  const std::vector<std::vector<float>> gradients = alone();
  const std::vector<float> rounded = rounded_between(gradients);
  const std::vector<Parameter>& parameters = test_.model.parameters().parameters();
  for (const uint32_t group_size : {1U, 4U, micro_batches}) {
    const std::vector<float> sum = accumulated(group_size);
    for (const Parameter& parameter : parameters) {
      EXPECT_LT(error_of(sum, gradients, parameter), tolerance) << parameter.name << ", groups of " << group_size;
    }
  }
  // The measure can detect a wrong sum: rounding to BF16 in between is far outside the tolerance.
  for (const Parameter& parameter : parameters) {
    EXPECT_GT(error_of(rounded, gradients, parameter), 4 * tolerance) << parameter.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GradientAccumulation,
                         testing::Values(Case{"untied", false, false}, Case{"tied", true, false},
                                         Case{"untied_nvfp4", false, true}, Case{"tied_nvfp4", true, true}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace nibble::test
