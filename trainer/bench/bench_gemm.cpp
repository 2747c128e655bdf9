// Implements gemm_cases() of trainer/bench/bench_kernels.h.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>

#include "dist/device/arena.h"
#include "quant/gemm/gemm.h"
#include "quant/quantize/quantize.h"
#include "quant/recipe/operand_role.h"
#include "trainer/bench/bench_kernels.h"

namespace nibble {
namespace {

// Makes an operand from a source [rows, inner], or [inner, rows] if `transpose` is true.
QuantizedTensor make_operand(BenchGroup& group, const OperandSpec& spec, OperandRole role, const Tensor& source,
                             bool transpose) {
  const int64_t rows = source.size(transpose ? 1 : 0);
  const int64_t inner = source.size(transpose ? 0 : 1);
  auto arena = std::make_shared<Arena>("bench operand");
  group.memory.push_back(arena);
  const OperandLayout layout = spec.format == Format::nvfp4 ? nvfp4_bench_layout : OperandLayout::rows;
  const auto allocate = [&] { return allocate_operand(*arena, spec, source.dtype(), rows, inner, layout); };
  QuantizedTensor storage = allocate();
  if (arena->planned_bytes() > 0) {
    arena->commit();
    storage = allocate();
  }
  const OperandStreams streams = operand_streams(role, spec, {.seed = 1, .step = 0, .micro_batch = 0, .tensor_id = 1});
  return quantize(
      {.source = source, .transpose = transpose, .spec = spec, .noise = streams.noise, .signs = streams.signs},
      storage);
}

struct LayerGemm {
  const char* name;
  OperandRole a, b;
};

constexpr std::array<LayerGemm, 3> layer_gemms = {
    {{"forward", OperandRole::forward_x, OperandRole::forward_w},
     {"grad_input", OperandRole::grad_input_dy, OperandRole::grad_input_w},
     {"grad_weight", OperandRole::grad_weight_dy, OperandRole::grad_weight_x}}};

struct LayerTensors {
  Tensor x, w, dy;
};

const Tensor& source_of(OperandRole role, const LayerTensors& tensors) {
  switch (role) {
    case OperandRole::forward_x:
    case OperandRole::grad_weight_x: return tensors.x;
    case OperandRole::forward_w:
    case OperandRole::grad_input_w: return tensors.w;
    case OperandRole::grad_input_dy:
    case OperandRole::grad_weight_dy: return tensors.dy;
  }
  return tensors.x;
}

bool is_transposed(OperandRole role) {
  return role == OperandRole::grad_input_w || role == OperandRole::grad_weight_dy || role == OperandRole::grad_weight_x;
}

void add_gemm(BenchGroup& group, const LayerGemm& layer_gemm, const LayerTensors& tensors, const LinearRecipe& recipe,
              const Tensor& output) {
  const auto operand = [&](OperandRole role) {
    return make_operand(group, spec_of(recipe, role), role, source_of(role, tensors), is_transposed(role));
  };
  const QuantizedTensor a = operand(layer_gemm.a);
  const QuantizedTensor b = operand(layer_gemm.b);
  const bool quantized = is_quantized(a.format);
  const std::string shape = fmt::format("{}x{}x{}", a.rows, b.rows, a.inner);
  const double flops = 2.0 * static_cast<double>(a.rows) * static_cast<double>(b.rows) * static_cast<double>(a.inner);
  BenchCase timed;
  timed.name = fmt::format("gemm/{}/{}/{}", name_of(a.format), layer_gemm.name, shape);
  timed.work = flops;
  timed.unit = "GFLOP/s";
  timed.limit.kind = quantized ? BenchLimit::Kind::nvfp4_block : BenchLimit::Kind::bf16_gemm;
  timed.limit.flops = flops;
  if (quantized) timed.rival = fmt::format("gemm/bf16/{}/{}", layer_gemm.name, shape);
  // The gradient of a weight is FP32; activations and their gradients are BF16.
  const bool weight = layer_gemm.a == OperandRole::grad_weight_dy;
  const Tensor c(output.data(), weight ? DType::f32 : DType::bf16, {a.rows, b.rows});
  timed.run = [problem = GemmProblem{.a = a, .b = b, .output = c, .accumulate = weight}] { gemm(problem); };
  group.cases.push_back(std::move(timed));
}

}  // namespace

BenchGroup gemm_cases(const std::vector<LayerShape>& shapes, const LinearRecipe& nvfp4) {
  BenchGroup group{.title = "matrix products", .cases = {}, .memory = {}};
  int64_t largest = 0;
  for (const LayerShape& shape : shapes) {
    largest = std::max({largest, shape.tokens * std::max(shape.features_in, shape.features_out),
                        shape.features_in * shape.features_out});
  }
  const Tensor output = zero_tensor(group, DType::f32, {largest});
  for (const LayerShape& shape : shapes) {
    const LayerTensors tensors{normal_tensor(group, {shape.tokens, shape.features_in}),
                               normal_tensor(group, {shape.features_out, shape.features_in}),
                               normal_tensor(group, {shape.tokens, shape.features_out})};
    for (const LayerGemm& layer_gemm : layer_gemms) {
      add_gemm(group, layer_gemm, tensors, nvfp4, output);
      add_gemm(group, layer_gemm, tensors, plain_recipe(Format::bf16), output);
    }
  }
  return group;
}

}  // namespace nibble
