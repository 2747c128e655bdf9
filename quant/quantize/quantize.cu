// The order of the quantiser's passes on a GPU. The tensor scale never visits the host.
#include "quant/quantize/quantize.h"

#include "quant/quantize/cuda/quantize_cast.cuh"
#include "quant/quantize/cuda/quantize_passes.cuh"
#include "quant/quantize/quantize_problem.h"
#include "quant/tensor/device_operand.cuh"

namespace nibble::cuda {
namespace {

SourceMatrix source_matrix(const Tensor& source) {
  const int64_t cols = source.cols();
  const bool vectors = reinterpret_cast<uintptr_t>(source.data()) % 16 == 0 &&
                       cols * static_cast<int64_t>(size_of(source.dtype())) % 16 == 0;
  return {source.data(), cols == 0 ? 0 : source.rows(), cols, vectors, nullptr, nullptr};
}
SourceKind kind_of(DType dtype) {
  return dtype == DType::bf16 ? SourceKind::bf16 : SourceKind::f32;
}

SourceMatrix saved_matrix(const QuantizedTensor& saved) {
  const DeviceOperand operand = device_operand(saved);
  return {operand.values, operand.rows, operand.inner, true, operand.block_scales, operand.tensor_scale};
}

ScaleOrigin scale_origin(const QuantizeProblem& problem) {
  if (needs_amax_pass(problem)) return ScaleOrigin::amax_pass;
  if (corrects_post_hoc(problem.spec)) return ScaleOrigin::corrected;
  return problem.amax != 0 ? ScaleOrigin::given : ScaleOrigin::fixed;
}

OperandCast operand_cast(const QuantizeProblem& problem, const QuantizedTensor& storage) {
  const OperandSpec& spec = problem.spec;
  const FormatTraits traits = traits_of(spec.format);
  check_storage(problem, storage);
  NIBBLE_CHECK(traits.block == 0 || storage.layout == OperandLayout::swizzled, "block scales on GPUs are swizzled");
  OperandCast cast{};
  cast.rules = {traits.element,
                traits.block_scale,
                spec.scale,
                spec.round,
                spec.correction,
                spec.block == BlockShape::square,
                spec.outer == OuterScale::row_128};
  cast.rotation = {spec.rotate, spec.rotations, spec.signs != Signs::fixed, problem.signs};
  cast.noise = problem.noise;
  cast.transpose = problem.transpose;
  cast.rows = storage.rows;
  cast.inner = storage.inner;
  cast.reciprocal_range = 1.0f / range_of(spec);
  cast.largest = largest_for_scale(spec);
  cast.origin = scale_origin(problem);
  cast.given_amax = problem.amax;
  cast.fixed_scale = traits.block_scale == ScaleCode::e8m0 ? fixed_tensor_scale(spec) : TensorScale{1, 1};
  cast.codes = storage.values.as<uint8_t>();
  if (traits.block != 0) cast.block_scales = storage.block_scales.as<uint8_t>();
  if (cast.rules.outer) cast.outer_scales = storage.outer_scales.as<float>();
  if (corrects_post_hoc(spec)) cast.corrected = problem.scratch.as<float>();
  cast.tensor_scale = storage.tensor_scale.as<float>();
  return cast;
}

CastKind kind_of(const OperandSpec& spec) {
  if (spec.format != Format::nvfp4) return CastKind::scaled;
  if (corrects_post_hoc(spec)) return CastKind::post_hoc;
  const bool plain = spec.scale == ScaleRule::amax;
  if (spec.outer != OuterScale::tensor) return CastKind::nvfp4;
  if (spec.block == BlockShape::square) {
    return plain && spec.round == Rounding::nearest ? CastKind::square : CastKind::nvfp4;
  }
  if (spec.round == Rounding::nearest && spec.scale == ScaleRule::four_over_six) return CastKind::four_over_six;
  if (!plain || spec.round == Rounding::ms_eden) return CastKind::nvfp4;
  return spec.round == Rounding::nearest      ? CastKind::nearest
         : spec.round == Rounding::stochastic ? CastKind::stochastic
                                              : CastKind::published;
}

void launch_cast_of_source(SourceKind source, CastKind kind, unsigned patches, const CastLaunch& problem) {
  switch (source) {
    case SourceKind::f32: return launch_cast<float>(kind, patches, problem);
    case SourceKind::bf16: return launch_cast<BFloat16>(kind, patches, problem);
    case SourceKind::saved: return launch_cast<SavedCode>(kind, patches, problem);
  }
}

void make(SourceKind source, CastKind kind, const CastLaunch& problem) {
  bool finish = false;
  bool correct = false;
  const unsigned patches = patches_of(problem.source);
  for (int i = 0; i < problem.count; ++i) {
    finish |= problem.operands[i].origin != ScaleOrigin::amax_pass;
    correct |= problem.operands[i].origin == ScaleOrigin::corrected;
  }
  clear_tensor_scales(problem);
  find_amax(source, problem);
  launch_cast_of_source(source, kind, patches, problem);
  if (correct) round_corrected_scales(problem);
  if (finish || patches == 0) finish_tensor_scales(problem);
}

QuantizedTensor plain_operand(const QuantizeProblem& problem, const QuantizedTensor& storage) {
  QuantizedTensor operand;
  if (set_plain_operand(problem, storage, operand)) convert(problem.source, operand.values);
  return operand;
}

}  // namespace

QuantizedTensor quantize(const QuantizeProblem& problem, const QuantizedTensor& storage) {
  check_source(problem, storage);
  if (!is_quantized(problem.spec.format)) return plain_operand(problem, storage);
  CastLaunch launch{};
  launch.source = source_matrix(problem.source);
  launch.count = 1;
  launch.operands[0] = operand_cast(problem, storage);
  make(kind_of(problem.source.dtype()), kind_of(problem.spec), launch);
  return storage;
}

QuantizedTensor requantize(const QuantizeProblem& problem, const QuantizedTensor& saved,
                           const QuantizedTensor& storage) {
  if (!decodes_on_load(problem, saved)) {
    cuda::dequantize_rows(saved, 0, problem.source);
    return cuda::quantize(problem, storage);
  }
  check_source(problem, storage);
  CastLaunch launch{};
  launch.source = saved_matrix(saved);
  launch.count = 1;
  launch.operands[0] = operand_cast(problem, storage);
  make(SourceKind::saved, kind_of(problem.spec), launch);
  return storage;
}

QuantizedPair quantize_pair(const QuantizePairProblem& problem) {
  const QuantizeProblem& rows = problem.rows;
  const QuantizeProblem& columns = problem.columns;
  if (!is_quantized(rows.spec.format) || !is_quantized(columns.spec.format)) {
    return {cuda::quantize(rows, problem.rows_storage), cuda::quantize(columns, problem.columns_storage)};
  }
  check_pair(problem);
  CastLaunch launch{};
  launch.source = source_matrix(rows.source);
  launch.count = 2;
  launch.operands[0] = operand_cast(rows, problem.rows_storage);
  launch.operands[1] = operand_cast(columns, problem.columns_storage);
  const CastKind kind = kind_of(rows.spec) == kind_of(columns.spec) ? kind_of(rows.spec) : CastKind::any;
  make(kind_of(rows.source.dtype()), kind, launch);
  return {problem.rows_storage, problem.columns_storage};
}

}  // namespace nibble::cuda
