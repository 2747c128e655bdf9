#include <span>

#include "bench/cuda_bench.h"
#include "model/cost.h"
#include "model/language_model.h"
#include "model/objectives/head.h"
#include "model/ops/elementwise.h"
#include "optim/adamw/adamw.h"
#include "quant/recipe/recipe.h"

namespace nibble {
namespace {

OperandSpec nvfp4_operand() {
  return {.format = Format::nvfp4};
}

// The recipe of configs/recipes/nvfp4.yaml.
Recipe nvidia_recipe() {
  OperandSpec square = nvfp4_operand();
  square.block = BlockShape::square;
  OperandSpec stochastic = nvfp4_operand();
  stochastic.round = Rounding::stochastic_published;
  OperandSpec rotated = nvfp4_operand();
  rotated.rotate = 16;
  OperandSpec noisy = rotated;
  noisy.round = Rounding::stochastic_published;
  OperandSpec saved_weight = square;
  return {.name = "nvfp4",
          .linear = {.forward_x = nvfp4_operand(),
                     .forward_w = square,
                     .grad_input_dy = stochastic,
                     .grad_input_w = saved_weight,
                     .grad_weight_dy = noisy,
                     .grad_weight_x = rotated},
          .high_precision = {{.layers = {.match = "embedding|head*"}, .format = Format::bf16},
                             {.layers = {.first_blocks = 1}, .format = Format::bf16},
                             {.layers = {.last_share = 0.15}, .format = Format::bf16}}};
}

struct TrainingCase {
  std::string name;
  ModelConfig model;
  int64_t sequences;
};

// Measures forward, backward and update of one micro-batch a step, with the settings of a run that starts on a GPU.
void training(Bench& bench, const TrainingCase& each, const Recipe& recipe, bool graphs) {
  const int64_t tokens = each.sequences * each.model.sequence_length;
  LanguageModel model(each.model, recipe,
                      {.sequences = each.sequences,
                       .sequence_length = each.model.sequence_length,
                       .device = DeviceKind::cuda,
                       .head_chunk_tokens = head_chunk_tokens(tokens, each.model.vocab_size, DeviceKind::cuda),
                       .graphs = graphs});
  const auto size = static_cast<int64_t>(model.parameters().flat_size());
  Arena& arena = bench.memory();
  const Layout layout = model.parameters().layout();
  const Placement owned = flat(layout, 1);
  AdamW adamw({});
  struct State {
    Tensor weights, gradient;
  };
  const auto made = allocate(arena, [&] {
    State state;
    state.weights = allocate_tensor(arena, DType::bf16, {size});
    state.gradient = allocate_tensor(arena, DType::f32, {size});
    adamw.allocate(arena, layout, owned_slices(owned, 0, std::vector<bool>(layout.tensors().size(), true)));
    return state;
  });
  fill(made.weights);  // losses have no meaning here
  model.bind(made.weights, made.gradient);
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  for (size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<int32_t>(i * 7919 % 4096 % static_cast<size_t>(each.model.vocab_size));
  const Tensor batch = tensor_of(std::span(ids), {each.sequences, each.model.sequence_length});
  uint32_t step = 0;
  bench.compute(
      fmt::format("training {} {}, {} tokens a step, {}", each.name, recipe.name, tokens,
                  graphs ? "graphs" : "default settings"),
      model_cost(each.model).training_flops_per_token * static_cast<double>(tokens),
      [&] {
        fill_zero(made.gradient);
        model.set_weights_changed();
        model.forward_backward(batch, batch, {.seed = 1, .step = step, .micro_batch = 0}, 1e-4F);
        adamw.update({.step = step++, .learning_rate = 1e-6, .grad_scale = 1e-3F, .seed = 1},
                     {.weights = made.weights, .gradient = made.gradient}, {0, static_cast<uint64_t>(size)});
      },
      tokens);
}

}  // namespace

// The figures that people ask for come first.
void bench_training(Bench& bench) {
  const auto repeated = [](int layers) {
    std::string pattern;
    for (int i = 0; i < layers; ++i) pattern += "*-";
    return pattern;
  };
  const TrainingCase tiny{.name = "tiny",
                          .model = {.pattern = repeated(1),
                                    .vocab_size = 128,
                                    .hidden_size = 64,
                                    .query_heads = 2,
                                    .kv_heads = 1,
                                    .head_dim = 32,
                                    .intermediate_size = 128,
                                    .sequence_length = 32},
                          .sequences = 1};
  const TrainingCase small{.name = "124M",
                           .model = {.pattern = repeated(12),
                                     .vocab_size = 50304,
                                     .hidden_size = 768,
                                     .query_heads = 12,
                                     .kv_heads = 12,
                                     .head_dim = 64,
                                     .intermediate_size = 2048,
                                     .sequence_length = 1024,
                                     .tied_head = true},
                           .sequences = 32};
  const TrainingCase large{.name = "1B",
                           .model = {.pattern = repeated(18),
                                     .vocab_size = 50304,
                                     .hidden_size = 2048,
                                     .query_heads = 16,
                                     .kv_heads = 4,
                                     .head_dim = 128,
                                     .intermediate_size = 5632,
                                     .sequence_length = 2048,
                                     .tied_head = true},
                           .sequences = 8};
  const Recipe bf16{.name = "bf16", .linear = plain_recipe(Format::bf16)};
  const Recipe nvfp4 = nvidia_recipe();
  struct Case {
    const TrainingCase& training;
    const Recipe& recipe;
    bool graphs = false;
  };
  for (const Case& each :
       {Case{large, bf16}, {large, nvfp4}, {small, bf16}, {small, nvfp4}, {large, bf16, true}, {large, nvfp4, true}}) {
    const TrainingCase& model = bench.smoke() ? tiny : each.training;
    bench.attempt("training " + model.name + " " + each.recipe.name,
                  [&] { training(bench, model, each.recipe, each.graphs); });
  }
}

}  // namespace nibble
