#include "bench/cuda_bench.h"
#include "model/ops/elementwise.h"
#include "model/ops/loss/cross_entropy.h"
#include "model/ops/norm/rms_norm.h"
#include "model/ops/swiglu.h"
#include "optim/adamw/adamw.h"

namespace nibble {
namespace {

void operators(Bench& bench) {
  const int64_t tokens = bench.smoke() ? 64 : 16384;
  const int64_t features = bench.smoke() ? 64 : 4096;
  const auto elements = static_cast<double>(tokens * features);
  Arena& arena = bench.memory();
  struct Tensors {
    Tensor a, b, c, wide, wide_gradient, weight, grad_weight, inverse_rms, workspace;
  };
  const auto made = allocate(arena, [&] {
    return Tensors{.a = allocate_tensor(arena, DType::bf16, {tokens, features}),
                   .b = allocate_tensor(arena, DType::bf16, {tokens, features}),
                   .c = allocate_tensor(arena, DType::bf16, {tokens, features}),
                   .wide = allocate_tensor(arena, DType::bf16, {tokens, 2 * features}),
                   .wide_gradient = allocate_tensor(arena, DType::bf16, {tokens, 2 * features}),
                   .weight = allocate_tensor(arena, DType::bf16, {features}),
                   .grad_weight = allocate_tensor(arena, DType::f32, {features}),
                   .inverse_rms = allocate_tensor(arena, DType::f32, {tokens}),
                   .workspace = allocate_tensor(arena, DType::f32, {token_ranges, features})};
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
  const auto made = allocate(arena, [&] {
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
  const Layout layout = one_vector("weights", parameters);
  const Placement owned = flat(layout, 1);
  AdamW adamw({});
  struct State {
    Tensor weights, gradient;
  };
  const auto made = allocate(arena, [&] {
    State state;
    adamw.allocate(arena, layout, owned_slices(owned, 0, {true}));
    state.weights = allocate_tensor(arena, DType::bf16, {static_cast<int64_t>(parameters)});
    state.gradient = allocate_tensor(arena, DType::f32, {static_cast<int64_t>(parameters)});
    return state;
  });
  uint64_t step = 0;
  // Bytes an element: gradient 4 read; two FP32 moments 8 read, 8 written; weight 2 read, 2 written.
  bench.stream("adamw", 24 * static_cast<double>(parameters), [&] {
    adamw.update({.step = step++, .learning_rate = 1e-3, .grad_scale = 1, .seed = 1},
                 {.weights = made.weights, .gradient = made.gradient}, {0, parameters});
  });
  bench.forget();
}

}  // namespace

void bench_operators(Bench& bench) {
  operators(bench);
  loss(bench);
  optimizer(bench);
}

}  // namespace nibble
