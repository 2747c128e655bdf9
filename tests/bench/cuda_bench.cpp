// What the GPU's kernels reach, as shares of what the same GPU copies and multiplies: for docs/gpu.md and
// scripts/gpu_check.sh. Prints one JSON object a line: name, milliseconds, and GB/s with its share of the measured copy
// or TFLOP/s with its share of the data sheet's BF16 peak. Bytes are those of the ideal kernel: every input read once,
// every output written once. Usage: cuda_bench [--smoke]     --smoke: tiny shapes, once, to see that everything runs
#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dist/arena.h"
#include "dist/cuda_device.h"
#include "dist/device_memory.h"
#include "model/ops/attention.h"
#include "model/ops/attention_provider.h"
#include "model/ops/cross_entropy.h"
#include "model/ops/elementwise.h"
#include "model/ops/embedding.h"
#include "model/ops/rms_norm.h"
#include "model/ops/swiglu.h"
#include "optim/adamw.h"
#include "quant/gemm.h"
#include "quant/gemm_provider.h"
#include "quant/quantize.h"
#include "quant/recipe.h"
#include "quant/tensor_copy.h"

namespace nibble {
namespace {

class Bench {
 public:
  explicit Bench(bool smoke) : smoke_(smoke) {}

  // Seconds of one call: the median of five measurements of at least 20 ms each.
  double seconds(const std::function<void()>& work) const {
    work();
    cuda::synchronize();
    if (smoke_) return time(work, 1);
    int calls = 1;
    while (time(work, calls) * calls < 0.02 && calls < 100000) calls *= 2;
    std::vector<double> times;
    for (int i = 0; i < 5; ++i) times.push_back(time(work, calls));
    std::nth_element(times.begin(), times.begin() + 2, times.end());
    return times[2];
  }

  void copy_rate() {
    const int64_t bytes = smoke_ ? 4096 : int64_t{1} << 30;
    Arena& arena = memory();
    const auto pair = allocate(arena, [&] {
      return std::vector{allocate_tensor(arena, DType::u8, {bytes}), allocate_tensor(arena, DType::u8, {bytes})};
    });
    const double time = seconds([&] { copy(pair[0], pair[1]); });
    copy_bytes_a_second_ = 2.0 * static_cast<double>(bytes) / time;
    fmt::print(R"({{"name":"copy","milliseconds":{:.4f},"gigabytes_per_second":{:.1f}}})"
               "\n",
               1e3 * time, copy_bytes_a_second_ / 1e9);
  }

  void stream(const std::string& name, double bytes, const std::function<void()>& work) const {
    const double time = seconds(work);
    fmt::print(R"({{"name":"{}","milliseconds":{:.4f},"gigabytes_per_second":{:.1f},"share_of_copy":{:.3f}}})"
               "\n",
               name, 1e3 * time, bytes / time / 1e9, bytes / time / copy_bytes_a_second_);
  }

  void compute(const std::string& name, double flops, const std::function<void()>& work) const {
    const double time = seconds(work);
    const double peak = cuda::device_properties().bf16_flops;
    fmt::print(R"({{"name":"{}","milliseconds":{:.4f},"teraflops":{:.2f},"share_of_bf16_peak":{:.3f}}})"
               "\n",
               name, 1e3 * time, flops / time / 1e12, peak > 0 ? flops / time / peak : 0.0);
  }

  // Memory of the device; plan() is called while the arena measures and again after.
  Arena& memory() { return *arenas_.emplace_back(std::make_unique<Arena>("bench", DeviceKind::cuda)); }
  template <class Plan>
  static auto allocate(Arena& arena, const Plan& plan) {
    plan();
    arena.commit();
    return plan();
  }
  void forget() { arenas_.clear(); }
  bool smoke() const { return smoke_; }

 private:
  static double time(const std::function<void()>& work, int calls) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; ++i) work();
    cuda::synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / calls;
  }

  bool smoke_;
  double copy_bytes_a_second_ = 1;
  std::vector<std::unique_ptr<Arena>> arenas_;
};

// Deterministic numbers of an activation's size, made on the CPU.
void fill(const Tensor& tensor) {
  const HostStage stage(tensor);
  const auto values = stage.as<BFloat16>();
  uint32_t state = 12345;
  for (BFloat16& value : values) {
    state = state * 1664525u + 1013904223u;
    value = bf16_nearest(static_cast<float>(static_cast<int32_t>(state >> 8) - (1 << 23)) * 0x1p-23f);
  }
  stage.finish();
}

OperandSpec nvfp4() {
  return {.format = Format::nvfp4};
}

void quantisers(Bench& bench) {
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
    const auto made = Bench::allocate(arena, [&] {
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

void products(Bench& bench) {
  const int64_t size = bench.smoke() ? 128 : 8192;
  const double flops = 2.0 * static_cast<double>(size) * static_cast<double>(size) * static_cast<double>(size);
  for (const Format format : {Format::bf16, Format::nvfp4, Format::fp8_e4m3, Format::mxfp8_e4m3}) {
    Arena& arena = bench.memory();
    const OperandSpec spec = plain_operand(format);
    struct Product {
      Tensor source, output, scratch;
      QuantizedTensor a, b;
    };
    const auto made = Bench::allocate(arena, [&] {
      Product product;
      product.source = allocate_tensor(arena, DType::bf16, {size, size});
      product.output = allocate_tensor(arena, DType::bf16, {size, size});
      product.a = allocate_operand(arena, spec, DType::bf16, size, size);
      product.b = allocate_operand(arena, spec, DType::bf16, size, size);
      product.scratch = allocate_product_scratch(arena, {.a = format, .b = format, .m = size, .n = size, .k = size});
      return product;
    });
    fill(made.source);
    const QuantizedTensor a = quantize({.source = made.source, .spec = spec}, made.a);
    const QuantizedTensor b = quantize({.source = made.source, .spec = spec}, made.b);
    bench.compute(fmt::format("product {} {}^3 ({})", name_of(format), size, cuda::describe_gemm(format, format)),
                  flops, [&] { gemm({.a = a, .b = b, .output = made.output, .scratch = made.scratch}); });
    bench.forget();
  }
}

void attention(Bench& bench) {
  const AttentionShape shape{.sequences = bench.smoke() ? 1 : 4,
                             .sequence_length = bench.smoke() ? 64 : 4096,
                             .query_heads = bench.smoke() ? 1 : 16,
                             .kv_heads = bench.smoke() ? 1 : 4,
                             .head_dim = bench.smoke() ? 64 : 128};
  Arena& arena = bench.memory();
  struct Tensors {
    Tensor qkv, output, grad_output, grad_qkv, log_sum_exp, workspace;
  };
  const auto made = Bench::allocate(arena, [&] {
    return Tensors{
        .qkv = allocate_tensor(arena, DType::bf16, {shape.tokens(), shape.qkv_features()}),
        .output = allocate_tensor(arena, DType::bf16, {shape.tokens(), shape.output_features()}),
        .grad_output = allocate_tensor(arena, DType::bf16, {shape.tokens(), shape.output_features()}),
        .grad_qkv = allocate_tensor(arena, DType::bf16, {shape.tokens(), shape.qkv_features()}),
        .log_sum_exp = allocate_tensor(arena, DType::f32, {shape.tokens() * shape.query_heads}),
        .workspace = allocate_tensor(arena, DType::f32, {attention_workspace_floats(shape, DeviceKind::cuda)})};
  });
  fill(made.qkv);
  fill(made.grad_output);
  // Two products over the causal half forward, five backward.
  const double product = static_cast<double>(shape.tokens() * shape.sequence_length) *
                         static_cast<double>(shape.query_heads * shape.head_dim);
  const std::string who = describe_attention_provider(shape);
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

void operators(Bench& bench) {
  const int64_t tokens = bench.smoke() ? 64 : 16384;
  const int64_t features = bench.smoke() ? 64 : 4096;
  const auto elements = static_cast<double>(tokens * features);
  Arena& arena = bench.memory();
  struct Tensors {
    Tensor a, b, c, wide, wide_gradient, weight, grad_weight, inverse_rms, workspace;
  };
  const auto made = Bench::allocate(arena, [&] {
    return Tensors{.a = allocate_tensor(arena, DType::bf16, {tokens, features}),
                   .b = allocate_tensor(arena, DType::bf16, {tokens, features}),
                   .c = allocate_tensor(arena, DType::bf16, {tokens, features}),
                   .wide = allocate_tensor(arena, DType::bf16, {tokens, 2 * features}),
                   .wide_gradient = allocate_tensor(arena, DType::bf16, {tokens, 2 * features}),
                   .weight = allocate_tensor(arena, DType::bf16, {features}),
                   .grad_weight = allocate_tensor(arena, DType::f32, {features}),
                   .inverse_rms = allocate_tensor(arena, DType::f32, {tokens}),
                   .workspace = allocate_tensor(arena, DType::f32, {rms_norm_workspace_rows, features})};
  });
  for (const Tensor& tensor : {made.a, made.b, made.wide, made.weight}) fill(tensor);
  bench.stream("add", 6 * elements, [&] { add(made.a, made.b, made.c); });
  bench.stream("rms_norm forward", 4 * elements, [&] {
    rms_norm_forward(
        {.input = made.a, .weight = made.weight, .epsilon = 1e-5, .output = made.b, .inverse_rms = made.inverse_rms});
  });
  bench.stream("rms_norm backward", 8 * elements, [&] {
    rms_norm_backward({.grad_output = made.b,
                       .input = made.a,
                       .weight = made.weight,
                       .inverse_rms = made.inverse_rms,
                       .grad_input = made.c,
                       .grad_weight = made.grad_weight,
                       .workspace = made.workspace});
  });
  bench.stream("swiglu forward", 6 * elements, [&] { swiglu_forward({.gate_up = made.wide, .output = made.b}); });
  bench.stream("swiglu backward", 10 * elements, [&] {
    swiglu_backward({.grad_output = made.b, .gate_up = made.wide, .grad_gate_up = made.wide_gradient});
  });
  bench.forget();
}

void loss(Bench& bench) {
  const int64_t tokens = bench.smoke() ? 16 : 8192;
  const int64_t vocabulary = bench.smoke() ? 128 : 50304;
  Arena& arena = bench.memory();
  struct Tensors {
    Tensor logits, gradient, targets, losses;
  };
  const auto made = Bench::allocate(arena, [&] {
    return Tensors{.logits = allocate_tensor(arena, DType::f32, {tokens, vocabulary}),
                   .gradient = allocate_tensor(arena, DType::bf16, {tokens, vocabulary}),
                   .targets = allocate_tensor(arena, DType::i32, {tokens}),
                   .losses = allocate_tensor(arena, DType::f32, {tokens})};
  });
  bench.stream("cross-entropy with gradient", 6 * static_cast<double>(tokens * vocabulary), [&] {
    cross_entropy({.logits = made.logits,
                   .targets = made.targets,
                   .grad_logits = made.gradient,
                   .scale = 1e-3F,
                   .losses = made.losses});
  });
  bench.forget();
}

void optimizer(Bench& bench) {
  const uint64_t parameters = bench.smoke() ? 4096 : uint64_t{1} << 27;
  Arena& arena = bench.memory();
  struct State {
    std::shared_ptr<AdamW> adamw;
    Tensor weights, gradient;
  };
  const auto made = Bench::allocate(arena, [&] {
    State state;
    state.adamw = std::make_shared<AdamW>(
        arena, AdamWConfig{},
        std::vector<ParameterSegment>{{.offset = 0, .count = parameters, .tensor_id = 1, .decay = true}}, 0, parameters,
        DType::bf16);
    state.weights = allocate_tensor(arena, DType::bf16, {static_cast<int64_t>(parameters)});
    state.gradient = allocate_tensor(arena, DType::f32, {static_cast<int64_t>(parameters)});
    return state;
  });
  uint64_t step = 0;
  // Gradient 4 read; two FP32 moments 8 read, 8 written; weight 2 read, 2 written.
  bench.stream("adamw", 24 * static_cast<double>(parameters), [&] {
    made.adamw->step({.step = step++, .learning_rate = 1e-3, .grad_scale = 1, .seed = 1}, made.weights, made.gradient);
  });
  bench.forget();
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  using namespace nibble;
  try {
    const bool smoke = argc > 1 && std::strcmp(argv[1], "--smoke") == 0;
    cuda::use_device(0);
    fmt::print(R"({{"name":"device","is":"{}","bf16_peak_teraflops":{:.1f}}})"
               "\n",
               cuda::device_properties().name, cuda::device_properties().bf16_flops / 1e12);
    Bench bench(smoke);
    bench.copy_rate();
    bench.forget();
    quantisers(bench);
    operators(bench);
    loss(bench);
    optimizer(bench);
    products(bench);
    attention(bench);
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n  fix: {}\n", error.what(), error.remedy());
    return static_cast<int>(error.code());
  }
  return 0;
}
