#include "model/blocks/block.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "model/ops/norm/rms_norm.h"

namespace nibble {

std::string block_parameter_name(const BlockPosition& position, std::string_view suffix) {
  return fmt::format("blocks.{}.{}", position.index, suffix);
}

std::optional<int> block_of_parameter(std::string_view name) {
  constexpr std::string_view prefix = "blocks.";
  int block = -1;
  if (!name.starts_with(prefix)) return block;
  const std::string_view number = name.substr(prefix.size(), name.find('.', prefix.size()) - prefix.size());
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), block);
  const bool whole = error == std::errc() && end == number.data() + number.size() && block >= 0;
  return whole ? std::optional(block) : std::nullopt;
}

Linear add_block_linear(const BlockLinear& linear, const BlockPosition& position, const ModelConfig& config,
                        const Recipe& recipe, ParameterTable& table) {
  const std::string name = block_parameter_name(position, linear.suffix);
  const double init_std = linear.to_residual ? config.init_std / std::sqrt(position.blocks) : config.init_std;
  const uint32_t id = table.add({.name = name,
                                 .shape = {linear.features_out, linear.features_in},
                                 .decay = true,
                                 .init_std = init_std,
                                 .parts = linear.parts,
                                 .dtype = config.dtype});
  return Linear({.name = name,
                 .weight_id = id,
                 .features_in = linear.features_in,
                 .features_out = linear.features_out,
                 .dtype = config.dtype,
                 .recipe = resolve(recipe, name, position.index, position.blocks),
                 .locations = resolve_locations(recipe, name, position.index, position.blocks),
                 .outliers = recipe.outliers});
}

Norm::Norm(std::string name, const ModelConfig& config, ParameterTable& table)
    : weight_id_(table.add({.name = std::move(name),
                            .shape = {config.hidden_size},
                            .use = TensorUse::vector,
                            .initialization = Initialization::ones,
                            .dtype = config.dtype})),
      hidden_size_(config.hidden_size),
      epsilon_(config.norm_epsilon) {}

void Norm::allocate(const LayerArenas& arenas) {
  inverse_rms_ = allocate_tensor(arenas.saved, DType::f32, {arenas.tokens()});
  if (!arenas.training) return;
  const size_t mark = arenas.workspace.mark();
  workspace_ = allocate_tensor(arenas.workspace, DType::f32, {token_ranges, hidden_size_});
  arenas.workspace.release(mark);
}

void Norm::bind(const BucketView& bucket) {
  weight_ = bucket[weight_id_].values;
  grad_weight_ = bucket[weight_id_].gradient;
}

void Norm::forward(const Tensor& input, const Tensor& output) const {
  rms_norm_forward({.input = input,
                    .weight = weight_,
                    .epsilon = epsilon_,
                    .output = output,
                    .inverse_rms = inverse_rms_.slice(0, input.rows())});
}

void Norm::backward(const Tensor& grad_output, const Tensor& input, const Tensor& grad_input, bool continues) const {
  rms_norm_backward({.grad_output = grad_output,
                     .input = input,
                     .weight = weight_,
                     .inverse_rms = inverse_rms_.slice(0, input.rows()),
                     .grad_input = grad_input,
                     .grad_weight = grad_weight_,
                     .workspace = workspace_,
                     .continues = continues});
}

}  // namespace nibble
