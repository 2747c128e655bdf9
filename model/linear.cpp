#include "model/linear.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nibble {
namespace {

std::string name_of_product(const OperandSpec& a, const OperandSpec& b) {
  if (a.format == b.format) return std::string(name_of(a.format));
  return fmt::format("{} x {}", name_of(a.format), name_of(b.format));
}

// The first `rows` rows of an operand's memory.
QuantizedTensor first_rows(QuantizedTensor operand, int64_t rows) {
  operand.rows = rows;
  if (!operand.values.empty()) operand.values = operand.values.slice(0, rows);
  if (!operand.block_scales.empty()) operand.block_scales = operand.block_scales.slice(0, rows);
  return operand;
}

}  // namespace

Linear::Linear(LinearDescription description) : description_(std::move(description)) {
  const LinearRecipe& recipe = description_.recipe;
  forward_x_ = make_operand(recipe.forward_x, Purpose::forward_x);
  forward_w_ = make_operand(recipe.forward_w, Purpose::forward_w);
  grad_input_dy_ = make_operand(recipe.grad_input_dy, Purpose::grad_input_dy);
  grad_input_w_ = make_operand(recipe.grad_input_w, Purpose::grad_input_w);
  grad_weight_dy_ = make_operand(recipe.grad_weight_dy, Purpose::grad_weight_dy);
  grad_weight_x_ = make_operand(recipe.grad_weight_x, Purpose::grad_weight_x);

  const auto refuse = [this](const std::string& what, const std::string& remedy) {
    throw Error(ExitCode::bad_config, fmt::format("recipe for {}: {}", description_.name, what), remedy);
  };
  if (recipe.forward_x.rotate != recipe.forward_w.rotate || recipe.grad_input_dy.rotate != recipe.grad_input_w.rotate ||
      recipe.grad_weight_dy.rotate != recipe.grad_weight_x.rotate) {
    refuse("a GEMM rotates only one of its operands, so that the rotation does not cancel",
           "give both operands the same rotate");
  }
  if ((grad_input_w_.from_saved || grad_weight_x_.from_saved) && recipe.forward_x.rotate != 0) {
    refuse("a backward operand is made from a forward operand that is rotated",
           "set rotate: 0 in forward, or use from: original");
  }
  if (forward_x_.from_saved || forward_w_.from_saved || grad_input_dy_.from_saved || grad_weight_dy_.from_saved) {
    refuse("an operand without a forward operand is made from: saved",
           "use it for grad_input.w and grad_weight.x only");
  }
}

Linear::Operand Linear::make_operand(OperandSpec spec, Purpose purpose) {
  const bool from_saved = std::exchange(spec.from, Source::original) == Source::saved;
  return {.spec = spec, .from_saved = from_saved, .purpose = purpose, .storage = {}, .dequantized = {}};
}

bool Linear::is_view(const OperandSpec& spec) const {
  return (spec.format == Format::f32 && description_.dtype == DType::f32) ||
         (spec.format == Format::bf16 && description_.dtype == DType::bf16);
}

bool Linear::keeps_input() const {
  return is_view(grad_weight_x_.spec) && !reads_back(grad_weight_x_, forward_x_);
}

// Whether a backward operand is made from the values of the forward operand and those differ from the original.
bool Linear::reads_back(const Operand& operand, const Operand& forward) const {
  return operand.from_saved && !is_view(forward.spec);
}

Tensor Linear::read_back(const Operand& operand, const QuantizedTensor& forward) {
  dequantize(forward, operand.dequantized);
  return operand.dequantized;
}

// An operand of backward made in advance, in `home`; [rows, inner], from a source [inner, rows].
void Linear::allocate_kept(Operand& operand, const Operand& forward, Arena& home, Arena& workspace, int64_t rows,
                           int64_t inner) const {
  const bool reads = reads_back(operand, forward);
  operand.storage = allocate_operand(home, operand.spec, reads ? DType::f32 : description_.dtype, rows, inner);
  if (!reads) return;
  // An FP32 operand is a view of the values read back, which therefore stay.
  Arena& arena = operand.spec.format == Format::f32 ? home : workspace;
  operand.dequantized = allocate_tensor(arena, DType::f32, {inner, rows});
}

void Linear::allocate(const LayerArenas& arenas) {
  const int64_t in = description_.features_in;
  const int64_t out = description_.features_out;
  const int64_t tokens = arenas.tokens();
  const DType dtype = description_.dtype;
  training_ = arenas.training;
  weights_changed_ = true;

  const size_t mark = arenas.workspace.mark();
  forward_w_.storage = allocate_operand(arenas.weights, forward_w_.spec, dtype, out, in);
  if (training_) {
    allocate_kept(grad_input_w_, forward_w_, arenas.weights, arenas.workspace, in, out);
    arenas.workspace.release(mark);
    allocate_kept(grad_weight_x_, forward_x_, arenas.saved, arenas.workspace, in, tokens);
  }
  forward_x_.storage = allocate_operand(arenas.workspace, forward_x_.spec, dtype, tokens, in);
  arenas.workspace.release(mark);
  if (!training_) return;
  // Backward uses its two operands one after the other.
  grad_input_dy_.storage = allocate_operand(arenas.workspace, grad_input_dy_.spec, dtype, tokens, out);
  arenas.workspace.release(mark);
  grad_weight_dy_.storage = allocate_operand(arenas.workspace, grad_weight_dy_.spec, dtype, out, tokens);
  arenas.workspace.release(mark);
}

void Linear::bind(const ParameterTable& table, const Tensor& weights, const Tensor& gradients) {
  const Tensor weight = table.view(weights, description_.weight_id);
  NIBBLE_CHECK(weight.dtype() == description_.dtype, "weights of another dtype");
  NIBBLE_CHECK(weight.size(0) == description_.features_out && weight.size(1) == description_.features_in,
               "weight shape");
  weights_changed_ = weights_changed_ || weight.data() != weight_.data();
  weight_ = weight;
  grad_weight_ = gradients.empty() ? Tensor() : table.view(gradients, description_.weight_id);
}

QuantizedTensor Linear::make(const Operand& operand, const Tensor& source, bool transpose, const StepContext& context) {
  const NoiseStream noise{.seed = context.seed,
                          .step = context.step,
                          .micro_batch = context.micro_batch,
                          .tensor_id = description_.weight_id,
                          .purpose = operand.purpose};
  const QuantizedTensor made =
      quantize({.source = source, .transpose = transpose, .spec = operand.spec, .noise = noise}, operand.storage);
  // A rotation can overflow where every element of the source is finite.
  if (!source_was_finite(made)) non_finite_ += std::max<int64_t>(1, count_non_finite(source));
  return made;
}

void Linear::prepare_weights(const StepContext& context) {
  const StepContext weight_context{.seed = context.seed, .step = context.step, .micro_batch = 0};
  const bool has_noise =
      forward_w_.spec.round != Rounding::nearest || (training_ && grad_input_w_.spec.round != Rounding::nearest);
  const bool same_noise = weights_context_.seed == context.seed && weights_context_.step == context.step;
  if (!weights_changed_ && (!has_noise || same_noise)) return;

  NIBBLE_CHECK(!weight_.empty(), "bind() comes before forward()");
  weight_operand_ = make(forward_w_, weight_, false, weight_context);
  if (training_) {
    const bool reads = reads_back(grad_input_w_, forward_w_);
    const Tensor source = reads ? read_back(grad_input_w_, weight_operand_) : weight_;
    transposed_weight_operand_ = make(grad_input_w_, source, true, weight_context);
  }
  weights_context_ = weight_context;
  weights_changed_ = false;
}

void Linear::forward(const LinearForward& problem) {
  prepare_weights(problem.context);
  const Tensor& x = problem.input;
  const bool reads_back_x = problem.keep && reads_back(grad_weight_x_, forward_x_);
  QuantizedTensor x_operand;
  if (!problem.output.empty() || reads_back_x) {
    Operand operand = forward_x_;
    operand.storage = first_rows(operand.storage, x.rows());
    x_operand = make(operand, x, false, problem.context);
  }
  if (!problem.output.empty()) gemm({.a = x_operand, .b = weight_operand_, .output = problem.output});
  if (!problem.keep) return;
  const Tensor source = reads_back_x ? read_back(grad_weight_x_, x_operand) : x;
  kept_input_operand_ = make(grad_weight_x_, source, true, problem.context);
}

void Linear::backward(const LinearBackward& problem) {
  const Tensor& dy = problem.grad_output;
  NIBBLE_CHECK(!grad_weight_.empty(), "backward() needs gradients bound");
  const QuantizedTensor dy_rows = make(grad_input_dy_, dy, false, problem.context);
  gemm({.a = dy_rows, .b = transposed_weight_operand_, .output = problem.grad_input});
  const QuantizedTensor dy_columns = make(grad_weight_dy_, dy, true, problem.context);
  gemm({.a = dy_columns, .b = kept_input_operand_, .output = grad_weight_, .accumulate = true});
}

int64_t Linear::take_non_finite_count() {
  return std::exchange(non_finite_, 0);
}

std::string Linear::describe() const {
  const LinearRecipe& recipe = description_.recipe;
  return fmt::format("forward {}, grad_input {}, grad_weight {}", name_of_product(recipe.forward_x, recipe.forward_w),
                     name_of_product(recipe.grad_input_dy, recipe.grad_input_w),
                     name_of_product(recipe.grad_weight_dy, recipe.grad_weight_x));
}

}  // namespace nibble
