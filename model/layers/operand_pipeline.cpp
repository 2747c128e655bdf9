#include "model/layers/operand_pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "dist/base/stopwatch.h"
#include "quant/quantize/quantize_rows.h"
#include "quant/tensor/host_operand.h"

namespace nibble {

OperandPipeline::OperandPipeline(LinearDescription description) : description_(std::move(description)) {
  for (const OperandRole role : all_operand_roles) {
    Operand& entry = operand(role);
    entry.spec = nibble::spec_of(description_.recipe, role);
    entry.from_saved = std::exchange(entry.spec.from, Source::original) == Source::saved;
    entry.role = role;
  }
  check_recipe();
  set_up_outliers();
}

// A GEMM is split if one of its operands has four bits and both are quantised.
void OperandPipeline::set_up_outliers() {
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

void OperandPipeline::check_recipe() const {
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

bool OperandPipeline::is_view(const OperandSpec& spec) const {
  return (spec.format == Format::f32 && description_.dtype == DType::f32) ||
         (spec.format == Format::bf16 && description_.dtype == DType::bf16);
}

// Returns the layout of both operands of the GEMM that `role` belongs to.
OperandLayout OperandPipeline::layout_of(OperandRole role) const {
  const size_t first = static_cast<size_t>(role) / 2 * 2;
  return gemm_layout(operands_[first].spec, operands_[first + 1].spec);
}

bool OperandPipeline::keeps_input() const {
  const Operand& saved_input = operand(OperandRole::grad_weight_x);
  return is_view(saved_input.spec) && !reads_back(saved_input, operand(OperandRole::forward_x));
}

bool OperandPipeline::quantizes() const {
  return std::ranges::any_of(operands_, [](const Operand& operand) { return is_quantized(operand.spec.format); });
}

// Returns true if a backward operand is made from the values of the forward operand and these differ from the original.
bool OperandPipeline::reads_back(const Operand& backward, const Operand& forward) const {
  return backward.from_saved && !is_view(forward.spec);
}

Tensor OperandPipeline::read_back(const Operand& backward, const QuantizedTensor& forward) {
  dequantize(forward, backward.dequantized);
  return backward.dequantized;
}

void OperandPipeline::set_weight(const Tensor& weight, uint64_t version) {
  NIBBLE_CHECK(weight.dtype() == description_.dtype, "weights of another dtype");
  NIBBLE_CHECK(weight.size(0) == description_.features_out && weight.size(1) == description_.features_in,
               "weight shape");
  if (version != weights_version_) set_weights_changed();
  weights_version_ = version;
  weight_ = weight;
}

void OperandPipeline::set_amax(const Tensor& scale_by, const Tensor& observed) {
  scale_by_amax_ = scale_by;
  observed_amax_ = observed;
}

void OperandPipeline::set_non_finite(const Tensor& count) {
  non_finite_ = count;
  if (outliers_) outliers_->set_non_finite(count);
}

OperandContext OperandPipeline::operand_context(const StepContext& context) const {
  return {.seed = context.seed,
          .step = context.step,
          .micro_batch = context.micro_batch,
          .tensor_id = description_.weight_id};
}

QuantizeProblem OperandPipeline::problem_of(const Operand& operand, const Tensor& source, bool transpose,
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

OperandObservations OperandPipeline::observations_of(OperandRole role) const {
  const auto index = static_cast<int64_t>(role);
  return {.non_finite = non_finite_,
          .observed_amax = observed_amax_.empty() ? Tensor() : observed_amax_.slice(index, index + 1)};
}

void OperandPipeline::record_operand(const Operand& operand, const QuantizeProblem& problem,
                                     const QuantizedTensor& result) {
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

QuantizedTensor OperandPipeline::make(const Operand& operand, const Tensor& source, bool transpose,
                                      const StepContext& context) {
  const QuantizeProblem problem = problem_of(operand, source, transpose, context);
  const QuantizedTensor result = quantize(problem, operand.storage);
  record_operand(operand, problem, result);
  return result;
}

// Makes the operand of an input whose rows are segments.
QuantizedTensor OperandPipeline::make_rows(const Operand& operand, const Tensor& source, const StepContext& context) {
  const QuantizeProblem problem = problem_of(operand, source, false, context);
  const Tensor scales = row_scales_.empty() ? Tensor() : row_scales_.slice(0, source.rows());
  const QuantizedTensor result = quantize_rows(problem, operand.storage, scales);
  if (is_quantized(operand.spec.format)) nibble::record_operand(problem, result, observations_of(operand.role));
  return result;
}

// Makes an operand of backward from the values of the forward operand alone. Statistics need these values in memory.
QuantizedTensor OperandPipeline::make_from_saved(const Operand& operand, const QuantizedTensor& forward,
                                                 const StepContext& context) {
  if (statistics_ != nullptr) return make(operand, read_back(operand, forward), true, context);
  const QuantizeProblem problem = problem_of(operand, operand.dequantized, true, context);
  const QuantizedTensor result = requantize(problem, forward, operand.storage);
  record_requantized(problem, forward, result, observations_of(operand.role));
  return result;
}

QuantizedPair OperandPipeline::make_pair(const Operand& rows, const Operand& columns, const Tensor& source,
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
bool OperandPipeline::must_remake(const Operand& operand, bool stale, const OperandContext& made_for,
                                  const OperandContext& context) const {
  if (stale) return true;
  if (!has_rounding_noise(operand.spec) && !has_drawn_signs(operand.spec)) return false;
  const bool every_micro_batch = operand.spec.signs == Signs::micro_batch;
  return made_for.seed != context.seed || made_for.step != context.step ||
         (every_micro_batch && made_for.micro_batch != context.micro_batch);
}

const QuantizedTensor& OperandPipeline::forward_weight(const StepContext& context) {
  const OperandContext now = operand_context(context);
  const Operand& forward_w = operand(OperandRole::forward_w);
  if (!must_remake(forward_w, forward_weight_stale_, forward_weight_context_, now)) return weight_operand_;
  NIBBLE_CHECK(!weight_.empty(), "bind() comes before forward()");
  weight_operand_ = make(forward_w, splits_forward() ? outliers_->split_weight(weight_) : weight_, false, context);
  forward_weight_context_ = now;
  forward_weight_stale_ = false;
  // An operand that is made from this one is out of date, too.
  if (operand(OperandRole::grad_input_w).from_saved) backward_weight_stale_ = true;
  return weight_operand_;
}

const QuantizedTensor& OperandPipeline::backward_weight(const StepContext& context) {
  const OperandContext now = operand_context(context);
  const Operand& backward_w = operand(OperandRole::grad_input_w);
  if (!must_remake(backward_w, backward_weight_stale_, backward_weight_context_, now))
    return transposed_weight_operand_;
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
  return transposed_weight_operand_;
}

bool OperandPipeline::makes_together(const Tensor& x, std::span<const OperandSegment> segments,
                                     const StepContext& context) const {
  const bool single_rows =
      std::ranges::all_of(segments, [](const OperandSegment& segment) { return segment.rows == 1; });
  const QuantizeProblem problem = problem_of(operand(OperandRole::forward_x), x, /*transpose=*/false, context);
  return single_rows && can_quantize_rows(problem) && (!splits_forward() || !outliers_->has_tensor_scale());
}

QuantizedTensor OperandPipeline::forward_input(const PipelineInput& input) {
  const Tensor& x = input.x;
  const StepContext& context = input.context;
  const bool has_segments = !input.segments.empty();
  NIBBLE_CHECK(!has_segments || (decoding_ && !input.keep), "segments are for inference");
  const bool splits = splits_forward() || splits_grad_weight();
  if (outliers_ && input.keep) outliers_->observe(x);
  const Tensor x_without_outliers = splits ? outliers_->split_input(x, input.keep) : x;
  const Tensor& source = splits_forward() ? x_without_outliers : x;
  const Tensor& saved_source = splits_grad_weight() ? x_without_outliers : x;
  const Operand& saved_input = operand(OperandRole::grad_weight_x);
  const bool from_dequantized = input.keep && reads_back(saved_input, operand(OperandRole::forward_x));
  const bool needs_rows = input.product || from_dequantized;
  Operand rows = operand(OperandRole::forward_x);
  rows.storage = rows_of(rows.storage, 0, x.rows());
  if (x.rows() == 1) rows.spec.block = BlockShape::row;  // a row alone has no square

  QuantizedTensor x_operand;
  if (needs_rows && input.keep && !from_dequantized && source.data() == saved_source.data()) {
    QuantizedPair pair = make_pair(rows, saved_input, source, context);
    saved_input_operand_ = pair.columns;
    return pair.rows;
  }
  if (needs_rows) x_operand = has_segments ? make_rows(rows, source, context) : make(rows, source, false, context);
  if (from_dequantized && !splits) {
    saved_input_operand_ = make_from_saved(saved_input, x_operand, context);
  } else if (from_dequantized) {
    outliers_->complete_input(read_back(saved_input, x_operand));
    saved_input_operand_ = make(saved_input, saved_input.dequantized, true, context);
  } else if (input.keep) {
    saved_input_operand_ = make(saved_input, saved_source, true, context);
  }
  return x_operand;
}

QuantizedPair OperandPipeline::grad_output(const Tensor& dy, const StepContext& context) {
  return make_pair(operand(OperandRole::grad_input_dy), operand(OperandRole::grad_weight_dy), dy, context);
}

void OperandPipeline::dequantize_weight(uint64_t begin, uint64_t end, float* values, const StepContext& context) {
  if (!is_quantized(operand(OperandRole::forward_w).spec.format)) return;
  const auto in = static_cast<uint64_t>(description_.features_in);
  weight_row_.resize(in);
  const HostOperand weight(forward_weight(context));
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

}  // namespace nibble
