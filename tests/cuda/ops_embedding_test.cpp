#include "cuda/device_fixture.h"
#include "model/ops/embedding.h"

namespace nibble {
namespace {

class Embedding : public DeviceTest {};

// Fills tokens; `distinct` bounds the number of different ones.
void fill_tokens(TwinTensor& tokens, int64_t vocab, int64_t distinct) {
  std::mt19937 generator(static_cast<unsigned>(distinct));
  for (int64_t i = 0; i < tokens.cpu().elements(); ++i) {
    const auto which = static_cast<int64_t>(generator() % static_cast<uint64_t>(distinct));
    tokens.cpu().as<int32_t>()[i] = static_cast<int32_t>(which * 7 % vocab);
  }
  tokens.upload();
}

TEST_F(Embedding, HasTheBitsOfTheCpu) {
  struct Case {
    int64_t count, vocab, distinct, features;
  };
  // The cases: one token only; each once; runs beyond the tokens that a block looks at together; rows in packs and not,
  // several slices.
  for (const Case& shape : {Case{1, 1, 1, 1}, Case{9, 50, 1, 16}, Case{40, 300, 300, 37}, Case{2100, 40, 5, 8},
                            Case{64, 40, 20, 1100}, Case{70, 40, 9, 301}}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      TwinTensor tokens(DType::i32, {shape.count});
      TwinTensor weight(dtype, {shape.vocab, shape.features});
      TwinTensor output(dtype, {shape.count, shape.features});
      TwinTensor grad_output(dtype, {shape.count, shape.features});
      TwinTensor grad_weight(DType::f32, {shape.vocab, shape.features});
      TwinTensor workspace(DType::i32, {2, shape.count});
      fill_tokens(tokens, shape.vocab, shape.distinct);
      weight.fill_normal(1);
      grad_output.fill_normal(2);
      grad_weight.fill_normal(3, 100);  // so that the order of the additions shows
      for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
        embedding_forward({tokens.on(device), weight.on(device), output.on(device)});
      }
      EXPECT_TRUE(same_bits(output)) << shape.count << " x " << shape.features;
      for (const bool continues : {false, true}) {
        for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
          embedding_backward(
              {tokens.on(device), grad_output.on(device), grad_weight.on(device), workspace.on(device), continues});
        }
        EXPECT_TRUE(same_bits(grad_weight)) << shape.count << " x " << shape.features << (continues ? ", goes on" : "");
      }
    }
  }
}

}  // namespace
}  // namespace nibble
