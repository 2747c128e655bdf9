#include "bench/cuda_bench.h"
#include "model/ops/attention/attention.h"
#include "model/ops/attention/attention_backend_kind.h"
#include "quant/gemm/gemm.h"
#include "quant/gemm/gemm_backend_kind.h"
#include "quant/quantize/quantize.h"
#include "quant/recipe/recipe.h"

namespace nibble {
namespace {

OperandSpec nvfp4() {
  return {.format = Format::nvfp4};
}

}  // namespace

void bench_quantisers(Bench& bench) {
  const int64_t rows = bench.smoke() ? 128 : 8192;
  const int64_t inner = bench.smoke() ? 256 : 8192;
  const auto elements = static_cast<double>(rows * inner);
  struct Case {
    const char* name;
    OperandSpec spec;
  };
  OperandSpec four_over_six = nvfp4();
  four_over_six.scale = ScaleRule::four_over_six;
  OperandSpec square = nvfp4();
  square.block = BlockShape::square;
  OperandSpec stochastic = nvfp4();
  stochastic.round = Rounding::stochastic;
  stochastic.rotate = 16;
  OperandSpec eden = nvfp4();
  eden.round = Rounding::ms_eden;
  eden.rotate = 128;
  const Case cases[] = {{"nearest", nvfp4()},
                        {"four over six", four_over_six},
                        {"16x16", square},
                        {"stochastic, Hadamard 16", stochastic},
                        {"MS-EDEN, Hadamard 128", eden}};
  for (const Case& each : cases) {
    Arena& arena = bench.memory();
    struct Operands {
      Tensor source, scratch, column_scratch;
      QuantizedTensor rows, columns;
    };
    const auto made = allocate(arena, [&] {
      Operands operands;
      operands.source = allocate_tensor(arena, DType::bf16, {rows, inner});
      const int64_t floats = std::max<int64_t>(1, quantize_scratch_floats(each.spec, rows, inner));
      operands.scratch = allocate_tensor(arena, DType::f32, {floats});
      operands.column_scratch = allocate_tensor(arena, DType::f32, {floats});
      operands.rows = allocate_operand(arena, each.spec, DType::bf16, rows, inner);
      operands.columns = allocate_operand(arena, each.spec, DType::bf16, inner, rows);
      return operands;
    });
    fill(made.source);
    const QuantizeProblem plain{.source = made.source, .spec = each.spec, .scratch = made.scratch};
    QuantizeProblem transposed = plain;
    transposed.transpose = true;
    transposed.scratch = made.column_scratch;
    bench.stream(fmt::format("quantise {}", each.name), 2.5625 * elements, [&] { quantize(plain, made.rows); });
    bench.stream(fmt::format("quantise {}, transposed", each.name), 2.5625 * elements,
                 [&] { quantize(transposed, made.columns); });
    bench.stream(fmt::format("quantise {}, both ways", each.name), 3.125 * elements, [&] {
      quantize_pair({.rows = plain, .columns = transposed, .rows_storage = made.rows, .columns_storage = made.columns});
    });
    bench.stream(fmt::format("dequantise {}", each.name), 2.5625 * elements,
                 [&] { dequantize(made.rows, made.source); });
    bench.forget();
  }
}

void bench_gemms(Bench& bench) {
  const int64_t size = bench.smoke() ? 128 : 8192;
  const double flops = 2.0 * static_cast<double>(size) * static_cast<double>(size) * static_cast<double>(size);
  for (const Format format : {Format::bf16, Format::nvfp4, Format::fp8_e4m3, Format::mxfp8_e4m3}) {
    Arena& arena = bench.memory();
    const OperandSpec spec = plain_operand(format);
    struct Operands {
      Tensor source, output, scratch;
      QuantizedTensor a, b;
    };
    const auto made = allocate(arena, [&] {
      Operands operands;
      operands.source = allocate_tensor(arena, DType::bf16, {size, size});
      operands.output = allocate_tensor(arena, DType::bf16, {size, size});
      operands.a = allocate_operand(arena, spec, DType::bf16, size, size);
      operands.b = allocate_operand(arena, spec, DType::bf16, size, size);
      operands.scratch = allocate_gemm_scratch(arena, {.a = format, .b = format, .m = size, .n = size, .k = size});
      return operands;
    });
    fill(made.source);
    const QuantizedTensor a = quantize({.source = made.source, .spec = spec}, made.a);
    const QuantizedTensor b = quantize({.source = made.source, .spec = spec}, made.b);
    bench.compute(fmt::format("product {} {}^3 ({})", name_of(format), size, cuda::describe_gemm(format, format)),
                  flops, [&] { gemm({.a = a, .b = b, .output = made.output, .scratch = made.scratch}); });
    bench.forget();
  }
}

void bench_attention(Bench& bench) {
  const AttentionShape shape{.sequences = bench.smoke() ? 1 : 4,
                             .sequence_length = bench.smoke() ? 64 : 4096,
                             .query_heads = bench.smoke() ? 1 : 16,
                             .kv_heads = bench.smoke() ? 1 : 4,
                             .head_dim = bench.smoke() ? 64 : 128};
  Arena& arena = bench.memory();
  struct Tensors {
    Tensor qkv, output, grad_output, grad_qkv, log_sum_exp, workspace;
  };
  const auto made = allocate(arena, [&] {
    return Tensors{.qkv = allocate_tensor(arena, DType::bf16, {shape.tokens(), shape.qkv_features()}),
                   .output = allocate_tensor(arena, DType::bf16, {shape.tokens(), shape.output_features()}),
                   .grad_output = allocate_tensor(arena, DType::bf16, {shape.tokens(), shape.output_features()}),
                   .grad_qkv = allocate_tensor(arena, DType::bf16, {shape.tokens(), shape.qkv_features()}),
                   .log_sum_exp = allocate_tensor(arena, DType::f32, {shape.tokens() * shape.query_heads}),
                   .workspace = allocate_tensor(arena, DType::f32,
                                                {attention_workspace_floats({.shape = shape}, DeviceKind::cuda)})};
  });
  fill(made.qkv);
  fill(made.grad_output);
  // The forward pass has two products over the causal half, the backward pass five.
  const double product = static_cast<double>(shape.tokens() * shape.sequence_length) *
                         static_cast<double>(shape.query_heads * shape.head_dim);
  const std::string who = describe_attention_backend({.shape = shape});
  bench.compute("attention forward (" + who + ")", 2 * product, [&] {
    attention_forward({.shape = shape,
                       .qkv = made.qkv,
                       .output = made.output,
                       .log_sum_exp = made.log_sum_exp,
                       .workspace = made.workspace});
  });
  bench.compute("attention backward (" + who + ")", 5 * product, [&] {
    attention_backward({.shape = shape,
                        .grad_output = made.grad_output,
                        .qkv = made.qkv,
                        .output = made.output,
                        .log_sum_exp = made.log_sum_exp,
                        .grad_qkv = made.grad_qkv,
                        .workspace = made.workspace});
  });
  bench.forget();
}

}  // namespace nibble
