#include "model/layers/linear.h"

#include <fmt/format.h>

#include <utility>

#include "quant/gemm/gemm_check.h"

namespace nibble {
namespace {

std::string name_of_gemm(const OperandSpec& a, const OperandSpec& b) {
  if (a.format == b.format) return std::string(name_of(a.format));
  return fmt::format("{} x {}", name_of(a.format), name_of(b.format));
}

// The roles of a product's operands.
OperandRole first_role(LinearProduct product) {
  return static_cast<OperandRole>(2 * static_cast<size_t>(product));
}
OperandRole second_role(LinearProduct product) {
  return static_cast<OperandRole>(2 * static_cast<size_t>(product) + 1);
}

}  // namespace

Linear::Linear(LinearDescription description) : pipeline_(std::move(description)) {}

void Linear::allocate(const LayerArenas& arenas) {
  Arena& workspace = arenas.workspace;
  const size_t mark = workspace.mark();
  pipeline_.allocate_for_weights(arenas);
  workspace.release(mark);
  pipeline_.allocate_for_forward(arenas);
  allocate_gemm(LinearProduct::forward, arenas);
  workspace.release(mark);
  if (!arenas.training) return;
  pipeline_.allocate_for_backward(arenas);
  // The two GEMMs run one after the other, and each reads the memory of both operands.
  const size_t gemm_mark = workspace.mark();
  allocate_gemm(LinearProduct::grad_input, arenas);
  workspace.release(gemm_mark);
  allocate_gemm(LinearProduct::grad_weight, arenas);
  workspace.release(mark);
}

// Allocates the scratch memory of a GEMM, behind its operands.
void Linear::allocate_gemm(LinearProduct which, const LayerArenas& arenas) {
  const int64_t tokens = arenas.tokens();
  const int64_t in = description().features_in;
  const int64_t out = description().features_out;
  const std::array<std::array<int64_t, 3>, linear_products> shapes{
      {{tokens, out, in}, {tokens, in, out}, {out, in, tokens}}};
  const auto index = static_cast<size_t>(which);
  const OperandSpec& a = pipeline_.spec_of(first_role(which));
  const OperandSpec& b = pipeline_.spec_of(second_role(which));
  scratch_of(which) = allocate_gemm_scratch(
      arenas.workspace, {.a = a.format,
                         .b = b.format,
                         .m = shapes[index][0],
                         .n = shapes[index][1],
                         .k = shapes[index][2],
                         .outer_scales = a.outer != OuterScale::tensor || b.outer != OuterScale::tensor,
                         .row_scales = arenas.decoding && which == LinearProduct::forward && has_tensor_scale(a)});
}

void Linear::bind(const BucketView& bucket) {
  const WeightView& weight = bucket[description().weight_id];
  pipeline_.set_weight(weight.values, bucket.weights_version);
  grad_weight_ = weight.gradient;
}

void Linear::multiply(LinearProduct which, const GemmProblem& problem) {
  last_gemm_[static_cast<size_t>(which)] = problem;
  if (check_ == nullptr || check_->product != which || check_->made) {
    gemm(problem);
    return;
  }
  const GemmCheck check(problem, gemm_tile({.rows = problem.a.rows, .columns = problem.b.rows}, check_->tile));
  gemm(problem);
  check_->difference = check.difference(describe_gemm(problem).exact);
  check_->made = true;
}

void Linear::forward_by_segment(const LinearForward& problem) {
  for (const OperandSegment& segment : problem.segments) {
    const int64_t first = segment.first_row;
    const int64_t last = first + segment.rows;
    StepContext context = problem.context;
    context.micro_batch = segment.micro_batch;
    forward(
        {.input = problem.input.slice(first, last), .output = problem.output.slice(first, last), .context = context});
  }
}

void Linear::forward(const LinearForward& problem) {
  const QuantizedTensor& weight = pipeline_.forward_weight(problem.context);
  const bool has_segments = !problem.segments.empty();
  if (has_segments && !pipeline_.makes_together(problem.input, problem.segments, problem.context)) {
    return forward_by_segment(problem);
  }
  const QuantizedTensor x = pipeline_.forward_input({.x = problem.input,
                                                     .context = problem.context,
                                                     .keep = problem.keep,
                                                     .product = !problem.output.empty(),
                                                     .segments = problem.segments});
  if (problem.output.empty()) return;
  OperandSplit* const split = pipeline_.forward_split();
  const Tensor sum = split != nullptr ? split->sum_of(problem.output) : problem.output;
  multiply(LinearProduct::forward, {.a = x, .b = weight, .output = sum, .scratch = scratch_of(LinearProduct::forward)});
  if (split != nullptr) split->add_forward(sum, problem.output);
}

void Linear::backward(const LinearBackward& problem) {
  const Tensor& dy = problem.grad_output;
  NIBBLE_CHECK(!grad_weight_.empty(), "backward() needs gradients bound");
  const QuantizedTensor& weight = pipeline_.backward_weight(problem.context);
  const QuantizedPair pair = pipeline_.grad_output(dy, problem.context);
  multiply(
      LinearProduct::grad_input,
      {.a = pair.rows, .b = weight, .output = problem.grad_input, .scratch = scratch_of(LinearProduct::grad_input)});
  multiply(LinearProduct::grad_weight, {.a = pair.columns,
                                        .b = pipeline_.kept_input(),
                                        .output = grad_weight_,
                                        .accumulate = true,
                                        .scratch = scratch_of(LinearProduct::grad_weight)});
  if (OperandSplit* const split = pipeline_.grad_weight_split()) split->add_grad_weight(dy, grad_weight_);
}

void Linear::set_channel_norms(const Tensor& norms) {
  if (OutlierChannels* const outliers = pipeline_.outliers()) outliers->set_norms(norms);
}

void Linear::set_outlier_channels(std::span<const int32_t> channels) {
  OutlierChannels* const outliers = pipeline_.outliers();
  if (outliers == nullptr) return;
  outliers->set_channels(channels);
  set_weights_changed();
}

std::string Linear::describe() const {
  const LinearRecipe& recipe = description().recipe;
  std::string text =
      fmt::format("forward {}, grad_input {}, grad_weight {}", name_of_gemm(recipe.forward_x, recipe.forward_w),
                  name_of_gemm(recipe.grad_input_dy, recipe.grad_input_w),
                  name_of_gemm(recipe.grad_weight_dy, recipe.grad_weight_x));
  if (outlier_count() == 0) return text;
  return text + fmt::format(", {} outlier channels {}", outlier_count(), name_of(description().outliers->format));
}

std::string Linear::format_of(LinearProduct product) const {
  const Format a = pipeline_.spec_of(first_role(product)).format;
  const Format b = pipeline_.spec_of(second_role(product)).format;
  return a == b ? std::string(name_of(a)) : fmt::format("{}/{}", name_of(a), name_of(b));
}

GemmDescription Linear::describe(LinearProduct product) const {
  const GemmProblem& last = last_gemm_[static_cast<size_t>(product)];
  NIBBLE_CHECK(!last.output.empty(), "a product is described after it has run");
  return describe_gemm(last);
}

}  // namespace nibble
