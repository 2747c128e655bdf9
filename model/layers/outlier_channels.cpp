#include "model/layers/outlier_channels.h"

#include <algorithm>
#include <utility>

#include "dist/base/error.h"
#include "quant/gemm/gemm.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {
namespace {

constexpr int64_t channel_multiple = 32;  // size of MX blocks

// Rounds f32 values to the output's dtype.
void round_to(const Tensor& values, const Tensor& output) {
  const QuantizedTensor storage{
      .format = Format::bf16, .rows = output.rows(), .inner = output.cols(), .values = output};
  quantize({.source = values, .spec = {.format = Format::bf16}}, storage);
}

}  // namespace

int64_t OutlierChannels::count(const OutlierRule& rule, int64_t features_in) {
  const int64_t channels = round_up(count_of_share(rule.share, features_in), channel_multiple);
  return 2 * channels < features_in ? channels : 0;
}

OutlierChannels::OutlierChannels(const OutlierRule& rule, const Layer& layer)
    : layer_(layer), spec_(plain_operand(rule.format)), count_(count(rule, layer.features_in)) {
  NIBBLE_CHECK(count_ > 0 && (layer.forward || layer.grad_weight), "a layer that is left alone");
}

void OutlierChannels::allocate_for_weight(const LayerArenas& arenas) {
  columns_ = allocate_tensor(arenas.weights, DType::i32, {count_});
  if (!layer_.forward) return;
  weight_without_outliers_ = allocate_tensor(arenas.workspace, layer_.dtype, {layer_.features_out, layer_.features_in});
  weight_columns_ = allocate_tensor(arenas.workspace, layer_.dtype, {layer_.features_out, count_});
  weight_storage_ = allocate_operand(arenas.weights, spec_, layer_.dtype, layer_.features_out, count_);
}

void OutlierChannels::allocate_for_read_back(Arena& workspace) {
  if (layer_.forward) weight_values_ = allocate_tensor(workspace, DType::f32, {layer_.features_out, count_});
}

void OutlierChannels::allocate_for_input(const LayerArenas& arenas) {
  Arena& workspace = arenas.workspace;
  const int64_t tokens = arenas.tokens();
  input_without_outliers_ = allocate_tensor(workspace, layer_.dtype, {tokens, layer_.features_in});
  input_columns_ = allocate_tensor(workspace, layer_.dtype, {tokens, count_});
  if (layer_.forward) {
    input_storage_ = allocate_operand(workspace, spec_, layer_.dtype, tokens, count_);
    input_values_ = allocate_tensor(workspace, DType::f32, {tokens, count_});
    output_ = allocate_tensor(workspace, DType::f32, {tokens, layer_.features_out});
    forward_scratch_ = allocate_gemm_scratch(
        workspace, {.a = spec_.format, .b = spec_.format, .m = tokens, .n = layer_.features_out, .k = count_});
  }
  if (layer_.grad_weight && arenas.training) {
    saved_input_storage_ = allocate_operand(arenas.saved, spec_, layer_.dtype, count_, tokens);
  }
}

void OutlierChannels::allocate_for_backward(const LayerArenas& arenas) {
  if (!layer_.grad_weight) return;
  grad_output_storage_ = allocate_operand(arenas.workspace, spec_, layer_.dtype, layer_.features_out, arenas.tokens());
  grad_columns_ = allocate_tensor(arenas.workspace, DType::f32, {layer_.features_out, count_});
  grad_weight_scratch_ = allocate_gemm_scratch(
      arenas.workspace,
      {.a = spec_.format, .b = spec_.format, .m = layer_.features_out, .n = count_, .k = arenas.tokens()});
}

void OutlierChannels::observe(const Tensor& x) const {
  if (!norms_.empty()) add_column_squares(x, norms_);
}

void OutlierChannels::set_channels(std::span<const int32_t> channels) {
  NIBBLE_CHECK(static_cast<int64_t>(channels.size()) == count_, "number of retained channels");
  channels_.assign(channels.begin(), channels.end());
  copy(tensor_of(std::span(channels_), {count_}), columns_);
}

QuantizedTensor OutlierChannels::make(const Tensor& source, bool transpose, const QuantizedTensor& storage) {
  const QuantizeProblem problem{.source = source, .transpose = transpose, .spec = spec_};
  const QuantizedTensor operand = quantize(problem, storage);
  record_operand(problem, operand, observations_);
  return operand;
}

Tensor OutlierChannels::split_weight(const Tensor& weight) {
  gather_columns(weight, columns_, weight_columns_);
  weight_ = make(weight_columns_, false, weight_storage_);
  copy_without_columns(weight, columns_, weight_without_outliers_);
  return weight_without_outliers_;
}

void OutlierChannels::complete_weight(const Tensor& values) {
  dequantize(weight_, weight_values_);
  put_columns(weight_values_, columns_, values);
}

Tensor OutlierChannels::split_input(const Tensor& x, bool keep) {
  const int64_t tokens = x.rows();
  const Tensor columns = input_columns_.slice(0, tokens);
  gather_columns(x, columns_, columns);
  if (layer_.forward) input_ = make(columns, false, rows_of(input_storage_, 0, tokens));
  if (keep && layer_.grad_weight) {
    const bool from_dequantized = layer_.forward && layer_.from_saved;
    if (from_dequantized) dequantize(input_, input_values_);
    saved_input_ = make(from_dequantized ? input_values_ : columns, true, saved_input_storage_);
  }
  const Tensor x_without_outliers = input_without_outliers_.slice(0, tokens);
  copy_without_columns(x, columns_, x_without_outliers);
  return x_without_outliers;
}

void OutlierChannels::complete_input(const Tensor& values) {
  if (layer_.grad_weight) {
    copy_without_columns(values, columns_, values);
  } else if (layer_.forward) {
    dequantize(input_, input_values_);
    put_columns(input_values_, columns_, values);
  }
}

Tensor OutlierChannels::sum_of(const Tensor& output) const {
  return output.dtype() == DType::f32 ? output : output_.slice(0, output.rows());
}

void OutlierChannels::add_forward(const Tensor& sum, const Tensor& output) {
  gemm({.a = input_, .b = weight_, .output = sum, .accumulate = true, .scratch = forward_scratch_});
  if (output.dtype() != DType::f32) round_to(sum, output);
}

void OutlierChannels::add_grad_weight(const Tensor& grad_output, const Tensor& grad_weight) {
  const QuantizedTensor transposed = make(grad_output, true, grad_output_storage_);
  gemm({.a = transposed, .b = saved_input_, .output = grad_columns_, .scratch = grad_weight_scratch_});
  add_to_columns(grad_columns_, columns_, grad_weight);
}

}  // namespace nibble
