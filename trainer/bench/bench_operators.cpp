// Implements operator_cases() of trainer/bench/bench_kernels.h, and the tensors that all groups use.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dist/device/arena.h"
#include "dist/device/thread_pool.h"
#include "dist/ranks/self_communicator.h"
#include "dist/zero/placement.h"
#include "dist/zero/tree_reduction.h"
#include "model/ops/attention/attention.h"
#include "model/ops/elementwise.h"
#include "model/ops/embedding.h"
#include "model/ops/loss/cross_entropy.h"
#include "model/ops/norm/rms_norm.h"
#include "model/ops/rope.h"
#include "model/ops/swiglu.h"
#include "optim/adamw/adamw.h"
#include "quant/format/codec.h"
#include "trainer/bench/bench_kernels.h"

namespace nibble {
namespace {

// Bytes for each counted element: those that a pass must read and write, and those of all its data.
struct Traffic {
  double read = 0, written = 0, working_set = 0;
};

void add_streaming(BenchGroup& group, std::string name, double elements, const Traffic& traffic,
                   std::function<void()> run) {
  BenchCase timed;
  timed.name = std::move(name);
  timed.work = elements;
  timed.unit = "Gelem/s";
  timed.limit = {.kind = BenchLimit::Kind::bandwidth,
                 .bytes_read = traffic.read * elements,
                 .bytes_written = traffic.written * elements,
                 .working_set = traffic.working_set * elements};
  timed.run = std::move(run);
  group.cases.push_back(std::move(timed));
}

// The flops are those of the GEMMs over the causal half: two in forward; five in backward, which computes the scores
// again and has four GEMMs of its own.
void add_attention(BenchGroup& group, int64_t sequences, int64_t length, int most_threads) {
  const AttentionShape shape{
      .sequences = sequences, .sequence_length = length, .query_heads = 12, .kv_heads = 12, .head_dim = 64};
  const Tensor qkv = normal_tensor(group, {shape.tokens(), shape.qkv_features()});
  const Tensor grad_output = normal_tensor(group, {shape.tokens(), shape.output_features()});
  const Tensor output = zero_tensor(group, DType::bf16, {shape.tokens(), shape.output_features()});
  const Tensor grad_qkv = zero_tensor(group, DType::bf16, {shape.tokens(), shape.qkv_features()});
  const Tensor log_sum_exp = zero_tensor(group, DType::f32, {sequences, shape.query_heads, length});
  const Tensor workspace = zero_tensor(group, DType::f32, {cpu::attention_workspace_floats(shape, most_threads)});
  const double gemm_flops = static_cast<double>(sequences * shape.query_heads) * static_cast<double>(length * length) *
                            static_cast<double>(shape.head_dim);  // half of 2 T^2 d
  const auto add = [&](const char* pass, double flops, std::function<void()> run) {
    BenchCase timed;
    timed.name = fmt::format("attention/{}/T{}", pass, length);
    timed.work = flops;
    timed.unit = "GFLOP/s";
    timed.limit = {.kind = BenchLimit::Kind::bf16_gemm, .flops = flops};
    timed.run = std::move(run);
    group.cases.push_back(std::move(timed));
  };
  add("forward", 2 * gemm_flops, [=] {
    attention_forward(
        {.shape = shape, .qkv = qkv, .output = output, .log_sum_exp = log_sum_exp, .workspace = workspace});
  });
  add("backward", 5 * gemm_flops, [=] {
    attention_backward({.shape = shape,
                        .grad_output = grad_output,
                        .qkv = qkv,
                        .output = output,
                        .log_sum_exp = log_sum_exp,
                        .grad_qkv = grad_qkv,
                        .workspace = workspace});
  });
}

void add_norm(BenchGroup& group, int64_t tokens, int64_t features) {
  const Tensor input = normal_tensor(group, {tokens, features});
  const Tensor grad_output = normal_tensor(group, {tokens, features});
  const Tensor weight = normal_tensor(group, {features});
  const Tensor output = zero_tensor(group, DType::bf16, {tokens, features});
  const Tensor grad_input = zero_tensor(group, DType::bf16, {tokens, features});
  const Tensor grad_weight = zero_tensor(group, DType::f32, {features});
  const Tensor inverse_rms = zero_tensor(group, DType::f32, {tokens});
  const Tensor workspace = zero_tensor(group, DType::f32, {token_ranges, features});
  const auto elements = static_cast<double>(tokens * features);
  add_streaming(group, "norm/forward", elements, {2, 2, 4}, [=] {
    rms_norm_forward({.input = input, .weight = weight, .epsilon = 1e-5, .output = output, .inverse_rms = inverse_rms});
  });
  add_streaming(group, "norm/backward", elements, {6, 2, 6}, [=] {
    rms_norm_backward({.grad_output = grad_output,
                       .input = input,
                       .weight = weight,
                       .inverse_rms = inverse_rms,
                       .grad_input = grad_input,
                       .grad_weight = grad_weight,
                       .workspace = workspace});
  });
  add_streaming(group, "norm/residual_sum", elements, {4, 2, 6}, [=] { add(input, grad_output, output); });
}

// Adds the embedding's gradient. As in text, few words make up most of the tokens: word w has the share of the cube
// roots in [w, w + 1) / vocabulary.
void add_embedding(BenchGroup& group, int64_t tokens, int64_t vocabulary, int64_t features) {
  const Tensor ids = zero_tensor(group, DType::i32, {tokens});
  std::set<int32_t> words;
  for (int64_t i = 0; i < tokens; ++i) {
    const double uniform = static_cast<double>(i * 7919 % tokens) / static_cast<double>(tokens);
    ids.as<int32_t>()[i] = static_cast<int32_t>(uniform * uniform * uniform * static_cast<double>(vocabulary));
    words.insert(ids.as<int32_t>()[i]);
  }
  const Tensor grad_output = normal_tensor(group, {tokens, features});
  const Tensor grad_weight = zero_tensor(group, DType::f32, {vocabulary, features});
  const double sums = 4 * static_cast<double>(words.size()) / static_cast<double>(tokens);
  const Tensor workspace = zero_tensor(group, DType::i32, {2, tokens});
  add_streaming(group, "embedding/backward", static_cast<double>(tokens * features), {2 + sums, sums, 2 + sums}, [=] {
    embedding_backward({.tokens = ids, .grad_output = grad_output, .grad_weight = grad_weight, .workspace = workspace});
  });
}

void add_activation(BenchGroup& group, int64_t tokens, int64_t features) {
  const Tensor gate_up = normal_tensor(group, {tokens, 2 * features});
  const Tensor grad_output = normal_tensor(group, {tokens, features});
  const Tensor output = zero_tensor(group, DType::bf16, {tokens, features});
  const Tensor grad_gate_up = zero_tensor(group, DType::bf16, {tokens, 2 * features});
  const auto elements = static_cast<double>(tokens * features);
  add_streaming(group, "swiglu/forward", elements, {4, 2, 6},
                [=] { swiglu_forward({.gate_up = gate_up, .output = output}); });
  add_streaming(group, "swiglu/backward", elements, {6, 4, 10}, [=] {
    swiglu_backward({.grad_output = grad_output, .gate_up = gate_up, .grad_gate_up = grad_gate_up});
  });
}

void add_rope(BenchGroup& group, int64_t sequences, int64_t length) {
  constexpr int64_t heads = 12;
  constexpr int64_t head_dim = 64;
  const Tensor qkv = normal_tensor(group, {sequences * length, 3 * heads * head_dim});
  const Tensor table = zero_tensor(group, DType::f32, {length, head_dim / 2, 2});
  fill_rope_table({}, table);
  add_streaming(group, "rope", static_cast<double>(sequences * length * 2 * heads * head_dim), {2, 2, 2}, [=] {
    rope({.qkv = qkv,
          .table = table,
          .sequence_length = length,
          .query_heads = heads,
          .kv_heads = heads,
          .head_dim = head_dim});
  });
}

void add_cross_entropy(BenchGroup& group, int64_t tokens, int64_t vocabulary) {
  const Tensor logits = zero_tensor(group, DType::f32, {tokens, vocabulary});
  const Tensor values = normal_tensor(group, {tokens, vocabulary});
  for (int64_t i = 0; i < values.elements(); ++i) logits.as<float>()[i] = to_float(values.as<BFloat16>()[i]);
  const Tensor targets = zero_tensor(group, DType::i32, {tokens});
  for (int64_t i = 0; i < tokens; ++i) targets.as<int32_t>()[i] = static_cast<int32_t>(i * 7919 % vocabulary);
  const Tensor losses = zero_tensor(group, DType::f32, {tokens});
  // The logits are read for the loss and again for the gradient.
  add_streaming(group, "cross_entropy", static_cast<double>(tokens * vocabulary), {8, 2, 6}, [=] {
    cross_entropy({.logits = logits, .targets = targets, .grad_logits = values, .scale = 1e-3F, .losses = losses});
  });
}

// Adds AdamW with BF16 weights that are rounded stochastically, and FP32 moments and gradients.
void add_optimizer(BenchGroup& group, uint64_t parameters) {
  struct State {
    Arena arena{"bench optimizer"};
    Tensor weights;
    std::span<float> gradients;
    Layout layout;
    std::unique_ptr<Placement> owned;
    AdamW optimizer{AdamWConfig{}};
    uint64_t step = 0;
  };
  auto state = std::make_shared<State>();
  state->layout = one_vector("weights", parameters);
  state->owned = std::make_unique<Placement>(flat(state->layout, 1));
  planned(state->arena, [&] {
    const auto count = static_cast<int64_t>(parameters);
    state->weights = allocate_tensor(state->arena, DType::bf16, {count});
    state->gradients = {static_cast<float*>(state->arena.allocate(parameters * sizeof(float))), parameters};
    state->optimizer.allocate(state->arena, state->layout, owned_slices(*state->owned, 0, {true}));
  });
  for (uint64_t i = 0; i < parameters; ++i) {
    state->gradients[i] = static_cast<float>(static_cast<int64_t>(i * 2654435761U % 2001) - 1000) * 1e-6F;
  }
  group.memory.push_back(state);
  add_streaming(group, "adamw", static_cast<double>(parameters), {14, 10, 14}, [state = state.get()] {
    const Tensor gradient = tensor_of(std::span(state->gradients), {static_cast<int64_t>(state->gradients.size())});
    state->optimizer.update({.step = state->step++, .learning_rate = 1e-3, .grad_scale = 1, .seed = 1},
                            {.weights = state->weights, .gradient = gradient}, {0, state->gradients.size()});
  });
}

// Adds the sum of the gradients of four groups of micro-batches on one rank: each buffer is set to zero, and three sums
// are computed.
void add_reduction(BenchGroup& group, uint64_t parameters) {
  constexpr uint64_t groups = 4;
  struct State {
    explicit State(uint64_t elements) : layout(one_vector("gradients", elements)), owned(flat(layout, 1)) {}
    Arena arena{"bench reduction"};
    SelfCommunicator communicator;
    Layout layout;
    Placement owned;
    std::unique_ptr<TreeReduction> reduction;
  };
  auto state = std::make_shared<State>(parameters);
  planned(state->arena, [&] {
    state->reduction = std::make_unique<TreeReduction>(
        state->arena, state->communicator, state->owned,
        Schedule(MicroBatchGroups::of_count(groups, groups), /*lanes=*/1, Schedule::Order::rows));
  });
  group.memory.push_back(state);
  constexpr double sums = groups - 1;
  add_streaming(group, "reduction", static_cast<double>(state->layout.elements() * groups),
                {8 * sums / groups, (4 * sums + 4 * groups) / groups, 4 * 3.0 / groups}, [state = state.get()] {
                  for (uint64_t i = 0; i < groups; ++i) {
                    state->reduction->begin_slot();
                    state->reduction->end_slot();
                  }
                  state->reduction->reduce_scatter();
                });
}

}  // namespace

BenchGroup operator_cases(bool quick, int most_threads) {
  BenchGroup group{.title = "operators", .cases = {}, .memory = {}};
  const int64_t tokens = quick ? 1024 : 4096;
  add_attention(group, tokens / 256, 256, most_threads);
  add_attention(group, tokens / 1024, 1024, most_threads);
  add_rope(group, tokens / 256, 256);
  add_norm(group, tokens, 768);
  add_embedding(group, tokens, 8192, 768);
  add_activation(group, tokens, 2048);
  add_cross_entropy(group, tokens / 4, 4096);
  const uint64_t parameters = uint64_t{1} << (quick ? 20 : 23);
  add_optimizer(group, parameters);
  add_reduction(group, parameters);
  return group;
}

// The sum of four bytes of a hash is close enough to a normal distribution.
Tensor normal_tensor(BenchGroup& group, std::initializer_list<int64_t> shape) {
  const Tensor tensor = zero_tensor(group, DType::bf16, shape);
  auto* values = tensor.as<BFloat16>();
  for (int64_t i = 0; i < tensor.elements(); ++i) {
    uint64_t bits = static_cast<uint64_t>(i + 1) * 0x9E3779B97F4A7C15U;
    bits ^= bits >> 29;
    bits *= 0xBF58476D1CE4E5B9U;
    bits ^= bits >> 32;
    const uint64_t sum = (bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24 & 255);
    constexpr float mean = 510;
    constexpr float deviation = 147.8F;
    values[i] = bf16_nearest((static_cast<float>(sum) - mean) / deviation);
  }
  return tensor;
}

Tensor zero_tensor(BenchGroup& group, DType dtype, std::initializer_list<int64_t> shape) {
  auto arena = std::make_shared<Arena>("bench tensor");
  group.memory.push_back(arena);
  return planned(*arena, [&] { return allocate_tensor(*arena, dtype, shape); });
}

}  // namespace nibble
