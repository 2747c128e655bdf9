#include "model/blocks/mlp_block.h"

#include "model/ops/elementwise.h"
#include "model/ops/swiglu.h"

namespace nibble {

MlpBlock::MlpBlock(const ModelConfig& config, const Recipe& recipe, const BlockPosition& position,
                   ParameterTable& table)
    : config_(config),
      norm_(block_parameter_name(position, "norm.weight"), config, table),
      gate_up_linear_(
          add_block_linear({.suffix = "mlp.gate_up.weight",
                            .features_in = config.hidden_size,
                            .features_out = 2 * config.intermediate_size,
                            .parts = {{"gate", config.intermediate_size}, {"up", config.intermediate_size}}},
                           position, config, recipe, table)),
      down_linear_(add_block_linear({.suffix = "mlp.down.weight",
                                     .features_in = config.intermediate_size,
                                     .features_out = config.hidden_size,
                                     .to_residual = true},
                                    position, config, recipe, table)) {}

void MlpBlock::allocate(const LayerArenas& arenas) {
  const int64_t tokens = arenas.tokens();
  const int64_t hidden = config_.hidden_size;
  const int64_t intermediate = config_.intermediate_size;
  const DType dtype = config_.dtype;
  Arena& saved = arenas.saved;
  Arena& workspace = arenas.workspace;
  const size_t mark = workspace.mark();

  gate_up_ = allocate_tensor(saved, dtype, {tokens, 2 * intermediate});
  hidden_scratch_ = allocate_tensor(workspace, dtype, {tokens, hidden});
  grad_activated_ = allocate_tensor(workspace, dtype, {tokens, intermediate});
  const bool keeps_normed = arenas.training && gate_up_linear_.keeps_input();
  const bool keeps_activated = arenas.training && down_linear_.keeps_input();
  normed_ = keeps_normed ? allocate_tensor(saved, dtype, {tokens, hidden}) : hidden_scratch_;
  activated_ = keeps_activated ? allocate_tensor(saved, dtype, {tokens, intermediate}) : grad_activated_;
  if (arenas.training) grad_gate_up_ = allocate_tensor(workspace, dtype, {tokens, 2 * intermediate});
  // The layers allocate behind the tensors above, which are alive while the layers run.
  norm_.allocate(arenas);
  gate_up_linear_.allocate(arenas);
  down_linear_.allocate(arenas);
  workspace.release(mark);
}

void MlpBlock::bind(const BucketView& bucket) {
  norm_.bind(bucket);
  gate_up_linear_.bind(bucket);
  down_linear_.bind(bucket);
}

void MlpBlock::forward(const Tensor& input, const Tensor& output, const Pass& pass) {
  const int64_t tokens = input.rows();
  const Tensor normed = normed_.slice(0, tokens);
  const Tensor gate_up = gate_up_.slice(0, tokens);
  const Tensor activated = activated_.slice(0, tokens);
  const Tensor projected = output.empty() ? Tensor() : hidden_scratch_.slice(0, tokens);

  norm_.forward(input, normed);
  gate_up_linear_.forward(
      {.input = normed, .output = gate_up, .context = pass.context, .keep = pass.keep, .segments = pass.segments});
  swiglu_forward({.gate_up = gate_up, .output = activated});
  down_linear_.forward(
      {.input = activated, .output = projected, .context = pass.context, .keep = pass.keep, .segments = pass.segments});
  if (!output.empty()) add(input, projected, output);
}

void MlpBlock::backward(const Tensor& input, const Tensor& gradient, const Pass& pass) {
  const Tensor& grad_normed = hidden_scratch_;
  down_linear_.backward({.grad_output = gradient, .grad_input = grad_activated_, .context = pass.context});
  swiglu_backward({.grad_output = grad_activated_, .gate_up = gate_up_, .grad_gate_up = grad_gate_up_});
  gate_up_linear_.backward({.grad_output = grad_gate_up_, .grad_input = grad_normed, .context = pass.context});
  norm_.backward(grad_normed, input, gradient);
}

}  // namespace nibble
