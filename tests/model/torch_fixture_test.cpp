// Compares the FP32 model with PyTorch in FP64 (make_torch_fixture.py): loss, logits and every gradient.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <stdexcept>

#include "model/model_fixture.h"

namespace nibble::test {
namespace {

// Reads the fixture from front to back.
class Fixture {
 public:
  Fixture() {
    std::ifstream file(NIBBLE_SOURCE_DIR "/tests/model/torch_fixture.bin", std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
  }

  template <class T>
  std::vector<T> read(size_t count) {
    std::vector<T> values(count);
    if (count * sizeof(T) > bytes_.size() - used_) throw std::runtime_error("torch_fixture.bin is too short");
    std::memcpy(values.data(), bytes_.data() + used_, count * sizeof(T));
    used_ += count * sizeof(T);
    return values;
  }
  size_t left() const { return bytes_.size() - used_; }

 private:
  std::vector<char> bytes_;
  size_t used_ = 0;
};

TEST(TorchFixture, LossLogitsAndGradientsAgree) {
  Fixture fixture;
  const std::vector<int32_t> sizes = fixture.read<int32_t>(8);
  ModelConfig config;
  config.pattern = "*-*-";
  config.vocab_size = sizes[0];
  config.hidden_size = sizes[1];
  config.query_heads = sizes[2];
  config.kv_heads = sizes[3];
  config.head_dim = sizes[4];
  config.intermediate_size = sizes[5];
  config.sequence_length = sizes[6];
  config.rope_theta = 500;
  config.norm_epsilon = 1e-3;
  config.dtype = DType::f32;
  const int64_t sequences = sizes[7];
  TestModel test(config, plain(Format::f32), {.sequences = sequences, .sequence_length = config.sequence_length});
  test.tokens = fixture.read<int32_t>(test.tokens.size());
  test.targets = fixture.read<int32_t>(test.targets.size());
  std::vector<float> expected(test.gradients.size());
  const std::vector<Parameter>& parameters = test.model.parameters().parameters();
  for (const Parameter& parameter : parameters) {
    const std::vector<float> weight = fixture.read<float>(parameter.count);
    const std::vector<float> gradient = fixture.read<float>(parameter.count);
    std::copy(weight.begin(), weight.end(), test.weights.begin() + static_cast<int64_t>(parameter.offset));
    std::copy(gradient.begin(), gradient.end(), expected.begin() + static_cast<int64_t>(parameter.offset));
  }
  test.bind();
  const double loss = fixture.read<double>(1)[0];
  const std::vector<float> logits =
      fixture.read<float>(static_cast<size_t>(config.sequence_length * config.vocab_size));
  EXPECT_EQ(fixture.left(), 0U);

  const StepContext context;
  EXPECT_NEAR(test.forward_backward(context) / loss, 1.0, 1e-6);
  // About a thousand independent roundings are on the longest way through the model: 4 * sqrt(1000) * epsilon.
  const double tolerance = 128 * static_cast<double>(std::numeric_limits<float>::epsilon());
  for (const Parameter& parameter : parameters) {
    const std::span<const float> actual = part(test.gradients, parameter);
    const std::span<const float> wanted = part(expected, parameter);
    double largest = 0;
    double error = 0;
    for (size_t i = 0; i < wanted.size(); ++i) {
      largest = std::max(largest, std::fabs(static_cast<double>(wanted[i])));
      error = std::max(error, std::fabs(static_cast<double>(actual[i]) - wanted[i]));
    }
    EXPECT_LT(error, tolerance * largest) << parameter.name;
  }
  const std::vector<float> actual = test.logits(config.sequence_length, context);
  for (size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(actual[i], logits[i], tolerance * (1 + std::fabs(logits[i])));
}

}  // namespace
}  // namespace nibble::test
