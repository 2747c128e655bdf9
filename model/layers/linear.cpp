#include "model/layers/linear.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "dist/base/stopwatch.h"
#include "quant/gemm/gemm_check.h"
#include "quant/quantize/quantize_rows.h"
#include "quant/tensor/host_operand.h"

namespace nibble {
namespace {

std::string name_of_gemm(const OperandSpec& a, const OperandSpec& b) {
  if (a.format == b.format) return std::string(name_of(a.format));
  return fmt::format("{} x {}", name_of(a.format), name_of(b.format));
}

}  // namespace

Linear::Linear(LinearDescription description) : description_(std::move(description)) {
  for (const OperandRole role : all_operand_roles) {
    Operand& entry = operand(role);
    entry.spec = spec_of(description_.recipe, role);
    entry.from_saved = std::exchange(entry.spec.from, Source::original) == Source::saved;
    entry.role = role;
  }
  check_recipe();
  set_up_outliers();
}

// A GEMM is split if one of its operands has four bits and both are quantised.
void Linear::set_up_outliers() {
  const auto splits = [this](OperandRole role_a, OperandRole role_b) {
    const int a = traits_of(operand(role_a).spec.format).code_bits;
    const int b = traits_of(operand(role_b).spec.format).code_bits;
    return a != 0 && b != 0 && std::min(a, b) == 4;
  };
  const OutlierChannels::Layer layer{.features_in = description_.features_in,
                                     .features_out = description_.features_out,
                                     .dtype = description_.dtype,
                                     .forward = splits(OperandRole::forward_x, OperandRole::forward_w),
                                     .grad_weight = splits(OperandRole::grad_weight_dy, OperandRole::grad_weight_x),
                                     .from_saved = operand(OperandRole::grad_weight_x).from_saved};
  const auto& rule = description_.outliers;
  if (!rule || (!layer.forward && !layer.grad_weight)) return;
  if (OutlierChannels::count(*rule, layer.features_in) > 0) outliers_.emplace(*rule, layer);
}

void Linear::check_recipe() const {
  const auto refuse = [this](const std::string& what, const std::string& remedy) {
    throw Error(ExitCode::bad_config, fmt::format("recipe for {}: {}", description_.name, what), remedy);
  };
  for (size_t first = 0; first < operand_roles; first += 2) {
    const OperandSpec& a = operands_[first].spec;
    const OperandSpec& b = operands_[first + 1].spec;
    if (a.rotate != b.rotate || a.rotations != b.rotations || a.signs != b.signs) {
      refuse(fmt::format("{} and {} are not rotated alike, so that the rotation does not cancel",
                         name_of(operands_[first].role), name_of(operands_[first + 1].role)),
             "give both operands the same rotate, rotations and signs");
    }
  }
  if (operand(OperandRole::forward_w).spec.signs == Signs::micro_batch) {
    refuse("the forward weight is made once a step, but its signs are drawn for every micro-batch",
           "set signs: step in forward");
  }
  for (const Operand& backward : operands_) {
    if (!backward.from_saved) continue;
    if (backward.role != OperandRole::grad_input_w && backward.role != OperandRole::grad_weight_x) {
      refuse("an operand without a forward operand is made from: saved",
             "use it for grad_input.w and grad_weight.x only");
    }
    if (operand(OperandRole::forward_x).spec.rotate != 0) {
      refuse("a backward operand is made from a forward operand that is rotated",
             "set rotate: 0 in forward, or use from: original");
    }
  }
}

bool Linear::is_view(const OperandSpec& spec) const {
  return (spec.format == Format::f32 && description_.dtype == DType::f32) ||
         (spec.format == Format::bf16 && description_.dtype == DType::bf16);
}

// Returns the layout of both operands of the GEMM that `role` belongs to.
OperandLayout Linear::layout_of(OperandRole role) const {
  const size_t first = static_cast<size_t>(role) / 2 * 2;
  return gemm_layout(operands_[first].spec, operands_[first + 1].spec);
}

bool Linear::keeps_input() const {
  const Operand& saved_input = operand(OperandRole::grad_weight_x);
  return is_view(saved_input.spec) && !reads_back(saved_input, operand(OperandRole::forward_x));
}

bool Linear::quantizes() const {
  return std::ranges::any_of(operands_, [](const Operand& operand) { return is_quantized(operand.spec.format); });
}

// Returns true if a backward operand is made from the values of the forward operand and these differ from the original.
bool Linear::reads_back(const Operand& backward, const Operand& forward) const {
  return backward.from_saved && !is_view(forward.spec);
}

Tensor Linear::read_back(const Operand& backward, const QuantizedTensor& forward) {
  dequantize(forward, backward.dequantized);
  return backward.dequantized;
}

void Linear::bind(const BucketView& bucket) {
  const Tensor& weight = bucket[description_.weight_id].values;
  NIBBLE_CHECK(weight.dtype() == description_.dtype, "weights of another dtype");
  NIBBLE_CHECK(weight.size(0) == description_.features_out && weight.size(1) == description_.features_in,
               "weight shape");
  if (bucket.weights_version != weights_version_) set_weights_changed();
  weights_version_ = bucket.weights_version;
  weight_ = weight;
  grad_weight_ = bucket[description_.weight_id].gradient;
}

void Linear::set_amax(const Tensor& scale_by, const Tensor& observed) {
  scale_by_amax_ = scale_by;
  observed_amax_ = observed;
}

void Linear::set_non_finite(const Tensor& count) {
  non_finite_ = count;
  if (outliers_) outliers_->set_non_finite(count);
}

OperandContext Linear::operand_context(const StepContext& context) const {
  return {.seed = context.seed,
          .step = context.step,
          .micro_batch = context.micro_batch,
          .tensor_id = description_.weight_id};
}

QuantizeProblem Linear::problem_of(const Operand& operand, const Tensor& source, bool transpose,
                                   const StepContext& context) const {
  const OperandStreams streams = operand_streams(operand.role, operand.spec, operand_context(context));
  const bool delayed = operand.spec.history != 0 && !scale_by_amax_.empty();
  return {.source = source,
          .transpose = transpose,
          .spec = operand.spec,
          .noise = streams.noise,
          .signs = streams.signs,
          .scratch = operand.scratch,
          .amax = delayed ? scale_by_amax_.as<float>()[static_cast<size_t>(operand.role)] : 0.0F};
}

OperandObservations Linear::observations_of(OperandRole role) const {
  const auto index = static_cast<int64_t>(role);
  return {.non_finite = non_finite_,
          .observed_amax = observed_amax_.empty() ? Tensor() : observed_amax_.slice(index, index + 1)};
}

void Linear::record_operand(const Operand& operand, const QuantizeProblem& problem, const QuantizedTensor& result) {
  if (!is_quantized(operand.spec.format)) return;
  nibble::record_operand(problem, result, observations_of(operand.role));
  if (statistics_ != nullptr) {
    const auto role = static_cast<size_t>(operand.role);
    const Stopwatch stopwatch;
    statistics_->operand[role] = measure(problem, result);
    statistics_->made[role] = true;
    statistics_->seconds += stopwatch.seconds();
  }
}

QuantizedTensor Linear::make(const Operand& operand, const Tensor& source, bool transpose, const StepContext& context) {
  const QuantizeProblem problem = problem_of(operand, source, transpose, context);
  const QuantizedTensor result = quantize(problem, operand.storage);
  record_operand(operand, problem, result);
  return result;
}

// Makes the operand of an input whose rows are segments.
QuantizedTensor Linear::make_rows(const Operand& operand, const Tensor& source, const StepContext& context) {
  const QuantizeProblem problem = problem_of(operand, source, false, context);
  const Tensor scales = row_scales_.empty() ? Tensor() : row_scales_.slice(0, source.rows());
  const QuantizedTensor result = quantize_rows(problem, operand.storage, scales);
  if (is_quantized(operand.spec.format)) nibble::record_operand(problem, result, observations_of(operand.role));
  return result;
}

// Makes an operand of backward from the values of the forward operand alone. Statistics need these values in memory.
QuantizedTensor Linear::make_from_saved(const Operand& operand, const QuantizedTensor& forward,
                                        const StepContext& context) {
  if (statistics_ != nullptr) return make(operand, read_back(operand, forward), true, context);
  const QuantizeProblem problem = problem_of(operand, operand.dequantized, true, context);
  const QuantizedTensor result = requantize(problem, forward, operand.storage);
  record_requantized(problem, forward, result, observations_of(operand.role));
  return result;
}

QuantizedPair Linear::make_pair(const Operand& rows, const Operand& columns, const Tensor& source,
                                const StepContext& context) {
  const QuantizePairProblem problem{.rows = problem_of(rows, source, false, context),
                                    .columns = problem_of(columns, source, true, context),
                                    .rows_storage = rows.storage,
                                    .columns_storage = columns.storage};
  const QuantizedPair result = quantize_pair(problem);
  record_operand(rows, problem.rows, result.rows);
  record_operand(columns, problem.columns, result.columns);
  return result;
}

// Returns true if a weight operand is out of date, because the weights or the random bits have changed.
bool Linear::must_remake(const Operand& operand, bool stale, const OperandContext& made_for,
                         const OperandContext& context) const {
  if (stale) return true;
  if (!has_rounding_noise(operand.spec) && !has_drawn_signs(operand.spec)) return false;
  const bool every_micro_batch = operand.spec.signs == Signs::micro_batch;
  return made_for.seed != context.seed || made_for.step != context.step ||
         (every_micro_batch && made_for.micro_batch != context.micro_batch);
}

void Linear::prepare_forward_weight(const StepContext& context) {
  const OperandContext now = operand_context(context);
  const Operand& forward_w = operand(OperandRole::forward_w);
  if (!must_remake(forward_w, forward_weight_stale_, forward_weight_context_, now)) return;
  NIBBLE_CHECK(!weight_.empty(), "bind() comes before forward()");
  weight_operand_ = make(forward_w, splits_forward() ? outliers_->split_weight(weight_) : weight_, false, context);
  forward_weight_context_ = now;
  forward_weight_stale_ = false;
  // An operand that is made from this one is out of date, too.
  if (operand(OperandRole::grad_input_w).from_saved) backward_weight_stale_ = true;
}

void Linear::prepare_backward_weight(const StepContext& context) {
  const OperandContext now = operand_context(context);
  const Operand& backward_w = operand(OperandRole::grad_input_w);
  if (!must_remake(backward_w, backward_weight_stale_, backward_weight_context_, now)) return;
  const bool from_dequantized = reads_back(backward_w, operand(OperandRole::forward_w));
  if (from_dequantized && !splits_forward()) {
    transposed_weight_operand_ = make_from_saved(backward_w, weight_operand_, context);
  } else {
    const Tensor source = from_dequantized ? read_back(backward_w, weight_operand_) : weight_;
    if (from_dequantized) outliers_->complete_weight(source);
    transposed_weight_operand_ = make(backward_w, source, true, context);
  }
  backward_weight_context_ = now;
  backward_weight_stale_ = false;
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

bool Linear::makes_segments_together(const LinearForward& problem) const {
  const bool single_rows =
      std::ranges::all_of(problem.segments, [](const OperandSegment& segment) { return segment.rows == 1; });
  const QuantizeProblem input =
      problem_of(operand(OperandRole::forward_x), problem.input, /*transpose=*/false, problem.context);
  return single_rows && can_quantize_rows(input) && (!splits_forward() || !outliers_->has_tensor_scale());
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
  prepare_forward_weight(problem.context);
  const bool has_segments = !problem.segments.empty();
  NIBBLE_CHECK(!has_segments || (decoding_ && !problem.keep), "segments are for inference");
  if (has_segments && !makes_segments_together(problem)) return forward_by_segment(problem);
  const Tensor& x = problem.input;
  const bool splits = splits_forward() || splits_grad_weight();
  if (outliers_ && problem.keep) outliers_->record(x);
  const Tensor x_without_outliers = splits ? outliers_->split_input(x, problem.keep) : x;
  const Tensor& source = splits_forward() ? x_without_outliers : x;
  const Tensor& saved_source = splits_grad_weight() ? x_without_outliers : x;
  const Operand& saved_input = operand(OperandRole::grad_weight_x);
  const bool from_dequantized = problem.keep && reads_back(saved_input, operand(OperandRole::forward_x));
  const bool needs_rows = !problem.output.empty() || from_dequantized;
  Operand rows = operand(OperandRole::forward_x);
  rows.storage = rows_of(rows.storage, 0, x.rows());
  if (x.rows() == 1) rows.spec.block = BlockShape::row;  // a row alone has no square

  QuantizedTensor x_operand;
  if (needs_rows && problem.keep && !from_dequantized && source.data() == saved_source.data()) {
    QuantizedPair pair = make_pair(rows, saved_input, source, problem.context);
    x_operand = pair.rows;
    saved_input_operand_ = pair.columns;
  } else {
    if (needs_rows) {
      x_operand = has_segments ? make_rows(rows, source, problem.context) : make(rows, source, false, problem.context);
    }
    if (from_dequantized && !splits) {
      saved_input_operand_ = make_from_saved(saved_input, x_operand, problem.context);
    } else if (from_dequantized) {
      outliers_->complete_input(read_back(saved_input, x_operand));
      saved_input_operand_ = make(saved_input, saved_input.dequantized, true, problem.context);
    } else if (problem.keep) {
      saved_input_operand_ = make(saved_input, saved_source, true, problem.context);
    }
  }
  if (problem.output.empty()) return;
  const Tensor sum = splits_forward() ? outliers_->sum_of(problem.output) : problem.output;
  multiply(LinearProduct::forward,
           {.a = x_operand, .b = weight_operand_, .output = sum, .scratch = scratch_of(LinearProduct::forward)});
  if (splits_forward()) outliers_->add_forward(sum, problem.output);
}

void Linear::backward(const LinearBackward& problem) {
  const Tensor& dy = problem.grad_output;
  NIBBLE_CHECK(!grad_weight_.empty(), "backward() needs gradients bound");
  prepare_backward_weight(problem.context);
  const QuantizedPair pair =
      make_pair(operand(OperandRole::grad_input_dy), operand(OperandRole::grad_weight_dy), dy, problem.context);
  multiply(LinearProduct::grad_input, {.a = pair.rows,
                                       .b = transposed_weight_operand_,
                                       .output = problem.grad_input,
                                       .scratch = scratch_of(LinearProduct::grad_input)});
  multiply(LinearProduct::grad_weight, {.a = pair.columns,
                                        .b = saved_input_operand_,
                                        .output = grad_weight_,
                                        .accumulate = true,
                                        .scratch = scratch_of(LinearProduct::grad_weight)});
  if (splits_grad_weight()) outliers_->add_grad_weight(dy, grad_weight_);
}

void Linear::set_channel_norms(const Tensor& norms) {
  if (outliers_) outliers_->set_norms(norms);
}

void Linear::set_outlier_channels(std::span<const int32_t> channels) {
  if (!outliers_) return;
  outliers_->set_channels(channels);
  set_weights_changed();
}

void Linear::dequantize_weight(uint64_t begin, uint64_t end, float* values, const StepContext& context) {
  if (!is_quantized(operand(OperandRole::forward_w).spec.format)) return;
  prepare_forward_weight(context);
  const auto in = static_cast<uint64_t>(description_.features_in);
  weight_row_.resize(in);
  const HostOperand weight(weight_operand_);
  const auto read_rows = [&](uint64_t first, uint64_t last, float* output) {
    const auto rows = static_cast<int64_t>(last - first);
    const Tensor matrix(output, DType::f32, {rows, description_.features_in});
    dequantize_rows(weight.operand(), static_cast<int64_t>(first), matrix);
  };
  for (uint64_t done = begin; done < end;) {
    const uint64_t row = done / in;
    const uint64_t whole_rows = done % in == 0 ? (end - done) / in : 0;
    const uint64_t stop = whole_rows > 0 ? done + whole_rows * in : std::min(end, (row + 1) * in);
    if (whole_rows > 0) {
      read_rows(row, row + whole_rows, values + (done - begin));
    } else {
      read_rows(row, row + 1, weight_row_.data());
      std::copy_n(weight_row_.data() + done % in, stop - done, values + (done - begin));
    }
    done = stop;
  }
  if (!splits_forward()) return;
  for (uint64_t row = begin / in; row * in < end; ++row) {
    for (const int32_t channel : outliers_->channels()) {
      const uint64_t element = row * in + static_cast<uint64_t>(channel);
      if (begin <= element && element < end) values[element - begin] = std::numeric_limits<float>::quiet_NaN();
    }
  }
}

std::string Linear::describe() const {
  const LinearRecipe& recipe = description_.recipe;
  std::string text =
      fmt::format("forward {}, grad_input {}, grad_weight {}", name_of_gemm(recipe.forward_x, recipe.forward_w),
                  name_of_gemm(recipe.grad_input_dy, recipe.grad_input_w),
                  name_of_gemm(recipe.grad_weight_dy, recipe.grad_weight_x));
  if (!outliers_) return text;
  return text + fmt::format(", {} outlier channels {}", outliers_->count(), name_of(description_.outliers->format));
}

std::string Linear::format_of(LinearProduct product) const {
  const size_t first = 2 * static_cast<size_t>(product);
  const Format a = operands_[first].spec.format;
  const Format b = operands_[first + 1].spec.format;
  return a == b ? std::string(name_of(a)) : fmt::format("{}/{}", name_of(a), name_of(b));
}

GemmDescription Linear::describe(LinearProduct product) const {
  const GemmProblem& last = last_gemm_[static_cast<size_t>(product)];
  NIBBLE_CHECK(!last.output.empty(), "a product is described after it has run");
  return describe_gemm(last);
}

}  // namespace nibble
