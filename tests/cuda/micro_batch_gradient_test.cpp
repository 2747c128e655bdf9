// On a GPU, too, the gradient of a micro-batch is formed from zero and then added
// (tests/model/micro_batch_gradient_test.cpp), and with exact products its bits are those of the CPU.
#include <algorithm>
#include <bit>

#include "cuda/device_fixture.h"
#include "model/model_fixture.h"
#include "model/ops/attention/attention_backend_kind.h"
#include "quant/gemm/cuda/gemm_backend.h"
#include "quant/gemm/gemm_backend_kind.h"

namespace nibble::test {
namespace {

constexpr int64_t length = 32;

struct Case {
  const char* name;
  Recipe recipe;
  bool tied_head;
  bool chunks;               // of the head
  bool norms_heads = false;  // and has a bias
};

// A model with its buffers on a device.
class DeviceModel {
 public:
  DeviceModel(const Case& wanted, DeviceKind device)
      : model_(config_of(wanted), wanted.recipe,
               {.sequences = 1,
                .sequence_length = length,
                .device = device,
                .head_chunk_tokens = wanted.chunks ? length / 2 : 0,
                .sums_micro_batches = true}),
        memory_("test", device) {
    const size_t size = model_.parameters().flat_size();
    std::vector<float> values(size);
    initialize(model_.parameters(), 11, 0, size, values.data());
    std::vector<BFloat16> rounded(size);
    for (size_t i = 0; i < size; ++i) rounded[i] = bf16_nearest(values[i]);
    const auto count = static_cast<int64_t>(size);
    planned(memory_, [&] {
      weights_ = allocate_tensor(memory_, DType::bf16, {count});
      gradients_ = allocate_tensor(memory_, DType::f32, {count});
    });
    copy(tensor_of(std::span(rounded), {count}), weights_);
    model_.bind(weights_, gradients_);
    for (Linear* linear : model_.linears()) {
      std::vector<int32_t> channels;
      for (int64_t i = 0; i < linear->outlier_count(); ++i) channels.push_back(static_cast<int32_t>(2 * i + 1));
      linear->set_outlier_channels(channels);
    }
  }

  // Returns the sum of the gradients of micro-batches [begin, end).
  std::vector<float> gradients(uint32_t begin, uint32_t end) {
    zero_bytes(gradients_.data(), gradients_.device(), gradients_.bytes());
    for (uint32_t micro_batch = begin; micro_batch < end; ++micro_batch) {
      std::vector<int32_t> tokens = random_tokens(length, 8, 100 + micro_batch);
      std::vector<int32_t> targets = random_tokens(length, model_.config().vocab_size, 1000 + micro_batch);
      model_.forward_backward(tensor_of(std::span(tokens), {1, length}), tensor_of(std::span(targets), {1, length}),
                              {.seed = 3, .step = 1, .micro_batch = micro_batch}, 1.0F / 64);
    }
    const HostCopy result(gradients_);
    const std::span<const float> values = result.as<float>();
    return {values.begin(), values.end()};
  }
  const std::vector<Parameter>& parameters() const { return model_.parameters().parameters(); }

 private:
  static ModelConfig config_of(const Case& wanted) {
    ModelConfig config = tiny_config();
    config.pattern = "*-";
    config.hidden_size = 96;
    config.head_dim = 16;
    config.intermediate_size = 48;
    config.sequence_length = length;
    config.dtype = DType::bf16;
    config.tied_head = wanted.tied_head;
    config.qk_norm = config.qkv_bias = wanted.norms_heads;
    return config;
  }

  LanguageModel model_;
  Arena memory_;
  Tensor weights_, gradients_;
};

// Returns the name of the first parameter of which the two have other bits; empty if there is none.
std::string first_difference(const std::vector<float>& a, const std::vector<float>& b,
                             const std::vector<Parameter>& parameters) {
  for (const Parameter& parameter : parameters) {
    const auto same = [](float x, float y) { return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y); };
    if (!std::ranges::equal(part(a, parameter), part(b, parameter), same)) return parameter.name;
  }
  return "";
}

class MicroBatchGradient : public DeviceTest {};

TEST_F(MicroBatchGradient, IsFormedFromZeroAndThenAdded) {
  set_attention_backend(AttentionBackendKind::exact);
  cuda::set_gemm_backend(cuda::GemmBackendKind::exact);
  Recipe outliers = nvidia();
  outliers.outliers = OutlierRule{.share = 0.3};
  for (const Case& test :
       {Case{"bf16, whole head", plain(Format::bf16), false, false},
        Case{"bf16, tied head in chunks", plain(Format::bf16), true, true},
        Case{"nvfp4, head in chunks", nvidia(), false, true}, Case{"nvfp4, tied head", nvidia(), true, false},
        Case{"nvfp4, outliers, tied head in chunks", outliers, true, true},
        Case{"nvfp4, normalised heads", nvidia(), false, false, true}}) {
    SCOPED_TRACE(test.name);
    DeviceModel cpu(test, DeviceKind::cpu);
    DeviceModel gpu(test, DeviceKind::cuda);
    std::vector<float> sum = gpu.gradients(0, 1);
    const std::vector<float> second = gpu.gradients(1, 2);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += second[i];
    const std::vector<float> together = gpu.gradients(0, 2);
    EXPECT_EQ(first_difference(sum, together, gpu.parameters()), "");
    EXPECT_EQ(first_difference(cpu.gradients(0, 2), together, gpu.parameters()), "");
  }
}

}  // namespace
}  // namespace nibble::test
