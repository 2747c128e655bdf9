// The GEMMs and the attention of libraries on the shapes of a model of a billion parameters: near nibble's own kernels,
// and the same bits every time. Small shapes in the simulator.
#include "cuda/device_fixture.h"
#include "cuda/fill.h"
#include "model/ops/attention/attention.h"
#include "model/ops/attention/attention_backend_kind.h"
#include "quant/gemm/gemm.h"
#include "quant/gemm/gemm_backend_kind.h"
#include "quant/quantize/quantize.h"
#include "quant/recipe/recipe.h"

namespace nibble {
namespace {

// Memory of the device for what `plan` allocates: it is called twice, to measure and to allocate.
template <class Plan>
auto allocate(Arena& arena, const Plan& plan) {
  plan();
  arena.commit();
  return plan();
}

Tensor device_tensor(Arena& arena, DType dtype, std::initializer_list<int64_t> shape) {
  return allocate(arena, [&] { return allocate_tensor(arena, dtype, shape); });
}

// Returns the largest difference, as a share of the largest number.
double difference(const Tensor& expected, const Tensor& actual) {
  const HostCopy a(expected);
  const HostCopy b(actual);
  const auto number = [](const HostCopy& copy, size_t i) -> double {
    return copy.tensor().dtype() == DType::f32 ? copy.as<float>()[i] : to_float(copy.as<BFloat16>()[i]);
  };
  double largest = 0;
  double off = 0;
  for (size_t i = 0; i < static_cast<size_t>(expected.elements()); ++i) {
    largest = std::max(largest, std::abs(number(a, i)));
    const double here = std::abs(number(a, i) - number(b, i));
    if (!(here <= off)) off = here;  // NaN, too
  }
  return off / largest;
}

class RealShapes : public DeviceTest {
 protected:
  void TearDown() override {
    cuda::set_gemm_backend(cuda::GemmBackendKind::automatic);
    set_attention_backend(AttentionBackendKind::automatic);
  }
  static bool simulated() { return cuda::device_properties().name == "simulated GPU"; }
};

struct Shape {
  const char* name;
  int64_t m, n, k;
};

void expect_sound_gemm(Format format, const Shape& shape) {
  SCOPED_TRACE(::testing::Message() << cuda::describe_gemm(format, format) << ", " << shape.name);
  const OperandSpec spec = plain_operand(format);
  Arena arena("operands", DeviceKind::cuda);
  struct Operands {
    Tensor sources[2];
    QuantizedTensor storage[2];
  };
  const auto made = allocate(arena, [&] {
    Operands operands;
    const int64_t rows[] = {shape.m, shape.n};
    for (int i = 0; i < 2; ++i) {
      operands.sources[i] = allocate_tensor(arena, DType::bf16, {rows[i], shape.k});
      operands.storage[i] = allocate_operand(arena, spec, DType::bf16, rows[i], shape.k);
    }
    return operands;
  });
  QuantizedTensor operands[2];
  for (int i = 0; i < 2; ++i) {
    fill(made.sources[i]);
    operands[i] = quantize({.source = made.sources[i], .spec = spec}, made.storage[i]);
  }
  Arena outputs[] = {Arena("exact", DeviceKind::cuda), Arena("first", DeviceKind::cuda),
                     Arena("next", DeviceKind::cuda)};
  const auto multiply = [&](Arena& memory, cuda::GemmBackendKind backend) {
    cuda::set_gemm_backend(backend);
    Arena scratch("scratch", DeviceKind::cuda);
    const GemmShape planned{.a = format, .b = format, .m = shape.m, .n = shape.n, .k = shape.k};
    const Tensor output = device_tensor(memory, DType::f32, {shape.m, shape.n});
    gemm({.a = operands[0], .b = operands[1], .output = output, .scratch = allocate(scratch, [&] {
                                                                  return allocate_gemm_scratch(scratch, planned);
                                                                })});
    cuda::synchronize();
    return output;
  };
  const Tensor first = multiply(outputs[1], cuda::GemmBackendKind::automatic);
  EXPECT_LT(difference(multiply(outputs[0], cuda::GemmBackendKind::exact), first), 0.01);
  for (int repetition = 0; repetition < 3; ++repetition) {
    Arena again("again", DeviceKind::cuda);
    EXPECT_TRUE(same_bits(first, multiply(again, cuda::GemmBackendKind::automatic)));
  }
}

TEST_F(RealShapes, GemmsAreNearAndRepeatable) {
  const Shape large[] = {{"queries, keys and values", 16384, 3072, 2048},
                         {"gradient of the last weight of an MLP", 2048, 5632, 16384}};
  const Shape small[] = {{"forward", 128, 96, 64}, {"gradient of a weight", 64, 96, 128}};
  for (const Format format : {Format::bf16, Format::nvfp4, Format::fp8_e4m3, Format::mxfp8_e4m3}) {
    for (const Shape& shape : simulated() ? small : large) expect_sound_gemm(format, shape);
  }
}

// Returns output, log_sum_exp and grad_qkv of one pass there and back.
struct AttentionResults {
  Tensor output, log_sum_exp, grad_qkv;
};
AttentionResults attend(Arena& arena, const AttentionShape& shape, const Tensor& qkv, const Tensor& grad_output) {
  struct Memory {
    AttentionResults results;
    Tensor workspace;
  };
  const auto made = allocate(arena, [&] {
    return Memory{.results = {.output = allocate_tensor(arena, DType::bf16, {shape.tokens(), shape.output_features()}),
                              .log_sum_exp = allocate_tensor(
                                  arena, DType::f32, {shape.sequences, shape.query_heads, shape.sequence_length}),
                              .grad_qkv = allocate_tensor(arena, DType::bf16, {shape.tokens(), shape.qkv_features()})},
                  .workspace = allocate_tensor(arena, DType::f32,
                                               {attention_workspace_floats({.shape = shape}, DeviceKind::cuda)})};
  });
  const AttentionResults& results = made.results;
  attention_forward({.shape = shape,
                     .qkv = qkv,
                     .output = results.output,
                     .log_sum_exp = results.log_sum_exp,
                     .workspace = made.workspace});
  attention_backward({.shape = shape,
                      .grad_output = grad_output,
                      .qkv = qkv,
                      .output = results.output,
                      .log_sum_exp = results.log_sum_exp,
                      .grad_qkv = results.grad_qkv,
                      .workspace = made.workspace});
  cuda::synchronize();
  return results;
}

class RealShapesOfHeads : public RealShapes, public ::testing::WithParamInterface<int> {};

TEST_P(RealShapesOfHeads, AttentionIsNearAndRepeatable) {
  const AttentionShape shape{
      .sequences = 2, .sequence_length = 4096, .query_heads = 16, .kv_heads = 4, .head_dim = GetParam()};
  const std::string backend = describe_attention_backend({.shape = shape});
  if (!backend.starts_with("cuDNN")) GTEST_SKIP() << backend;
  Arena inputs[] = {Arena("qkv", DeviceKind::cuda), Arena("grad_output", DeviceKind::cuda)};
  const Tensor qkv = device_tensor(inputs[0], DType::bf16, {shape.tokens(), shape.qkv_features()});
  const Tensor grad_output = device_tensor(inputs[1], DType::bf16, {shape.tokens(), shape.output_features()});
  fill(qkv);
  fill(grad_output);
  Arena memory[] = {Arena("cuDNN", DeviceKind::cuda), Arena("exact", DeviceKind::cuda)};
  const AttentionResults first = attend(memory[0], shape, qkv, grad_output);
  for (int repetition = 0; repetition < 3; ++repetition) {
    Arena arena("again", DeviceKind::cuda);
    const AttentionResults again = attend(arena, shape, qkv, grad_output);
    EXPECT_TRUE(same_bits(first.output, again.output));
    EXPECT_TRUE(same_bits(first.grad_qkv, again.grad_qkv));
  }
  set_attention_backend(AttentionBackendKind::exact);
  const AttentionResults exact = attend(memory[1], shape, qkv, grad_output);
  EXPECT_LT(difference(exact.output, first.output), 0.02);
  EXPECT_LT(difference(exact.log_sum_exp, first.log_sum_exp), 1e-3);
  EXPECT_LT(difference(exact.grad_qkv, first.grad_qkv), 0.02);
}
INSTANTIATE_TEST_SUITE_P(HeadDim, RealShapesOfHeads, ::testing::Values(32, 64, 128));

}  // namespace
}  // namespace nibble
