#include "quant/quantize/quantize.h"

#include <algorithm>
#include <array>
#include <limits>
#include <span>

#include "dist/base/error.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "quant/format/codec.h"
#include "quant/format/tile.h"
#include "quant/isa/instruction_set.h"
#include "quant/isa/kernel_table.h"
#include "quant/quantize/cpu/cast.h"
#include "quant/quantize/cpu/cast_kernels.h"
#include "quant/quantize/cpu/row_block.h"
#include "quant/quantize/quantize_problem.h"
#include "quant/tensor/tensor_scan.h"

namespace nibble {
namespace cpu {
namespace {

// ---- Formats that are not quantised ----

QuantizedTensor plain_operand(const QuantizeProblem& problem, const QuantizedTensor& storage) {
  QuantizedTensor operand;
  if (set_plain_operand(problem, storage, operand)) copy_converted(problem.source, operand.values);
  return operand;
}

// ---- Quantised formats ----

// Returns whether the SIMD kernels of cast_kernels.h implement the rule.
bool has_simd_kernel(const OperandSpec& spec, int64_t rows, int64_t inner) {
  const bool rule =
      spec.scale == ScaleRule::amax || (spec.scale == ScaleRule::four_over_six && spec.block == BlockShape::row);
  return spec.format == Format::nvfp4 && spec.outer == OuterScale::tensor && spec.round != Rounding::ms_eden && rule &&
         spec.range == 0 && spec.ceiling == 0 && spec.rotations == 1 &&
         (spec.rotate == 0 || spec.rotate == hadamard_points) &&
         round_up<int64_t>(rows, lanes) * (inner / lanes) <= int64_t{1} << 32;
}

constexpr int64_t longest_range = 2048;  // largest number of positions in a range

// The signs of the blocks of a range, in the form that the SIMD kernels take.
struct RangeSigns {
  uint16_t of_block[longest_range / lanes + 1] = {};  // the SIMD kernels read one beyond the range
};
void set_signs(const RowBlockSource& source, const TileRange& range, RangeSigns& signs) {
  PhiloxBlock chunk = fixed_signs(source.rotate, 0);
  for (int64_t position = range.first_position; position < range.last_position; position += lanes) {
    const bool next = position == range.first_position || position % sign_chunk == 0;
    if (source.drawn_signs && next) chunk = drawn_signs(source.signs, 0, position / sign_chunk);
    const uint32_t word = chunk.word[position % sign_chunk / 32];
    signs.of_block[(position - range.first_position) / lanes] = static_cast<uint16_t>(word >> position % 32);
  }
}

TileSource tile_source(const RowBlockSource& source) {
  return {source.data, source.dtype == DType::f32, source.transpose, source.stride, source.rows, source.inner};
}
TileRange tile_range(const RowBlockRange& range) {
  return {range.first_row, range.last_row, range.first_position, range.last_position};
}

// One operand while it is made.
struct QuantizeJob {
  QuantizeJob(InstructionSet level, const QuantizeProblem& quantize_problem, const QuantizedTensor& quantize_storage);

  // Sets the scale of the tensor. amax is that of the tensor, or of a history.
  void set_scale(float amax);
  void cast(const RowBlockRange& range);
  // Adds the range to the operand's amax, and to `plain`, unless it is null, the amax of the source before the
  // rotation.
  void include_amax(const RowBlockRange& range, SharedMax* plain);
  void finish();

  const QuantizeProblem& problem;
  const QuantizedTensor& storage;
  RowBlockSource source;
  CastProblem cast_args;
  const CastKernels* kernels;  // null: no SIMD kernel implements the rule
  SharedMax amax, corrected;

 private:
  void cast_tiles(const TileRange& range) const;
};

QuantizeJob::QuantizeJob(InstructionSet level, const QuantizeProblem& quantize_problem,
                         const QuantizedTensor& quantize_storage)
    : problem(quantize_problem),
      storage(quantize_storage),
      source(row_block_source(problem.source, problem.transpose, problem.spec, problem.signs)),
      cast_args{.spec = problem.spec,
                .noise = problem.noise,
                .rows = source.rows,
                .inner = source.inner,
                .layout = storage.layout,
                .codes = storage.values.as<uint8_t>(),
                .block_scales = storage.block_scales.empty() ? nullptr : storage.block_scales.as<uint8_t>(),
                .outer_scales = storage.outer_scales.empty() ? nullptr : storage.outer_scales.as<float>(),
                .corrected = corrects_post_hoc(problem.spec) ? problem.scratch.as<float>() : nullptr},
      kernels(has_simd_kernel(problem.spec, source.rows, source.inner) ? cast_kernels_of(level) : nullptr) {
  check_storage(problem, storage);
  NIBBLE_CHECK(storage.layout != OperandLayout::swizzled, "swizzled operands are made on GPUs");
}

void QuantizeJob::set_scale(float tensor_amax) {
  TensorScale& scale = cast_args.scale;
  if (traits_of(problem.spec.format).block_scale == ScaleCode::e8m0) {
    scale = fixed_tensor_scale(problem.spec);
  } else if (problem.spec.outer == OuterScale::tensor) {
    scale = tensor_scale_of(tensor_amax, largest_for_scale(problem.spec));
  }
}

void QuantizeJob::include_amax(const RowBlockRange& range, SharedMax* plain) {
  if (kernels != nullptr) {
    RangeSigns signs;
    TileAmax found{tile_source(source), tile_range(range), signs.of_block, plain != nullptr, 0, 0};
    set_signs(source, found.range, signs);
    kernels->rotated_amax(found);
    amax.include(found.rotated);
    if (plain != nullptr) plain->include(found.plain);
    return;
  }
  for_each_row_block(range, [&](const RowBlockBounds& bounds) {
    RowBlock row_block;
    load_row_block(source, bounds, row_block);
    amax.include(amax_of_row_block(row_block, bounds.positions));
  });
}

void QuantizeJob::cast_tiles(const TileRange& range) const {
  const OperandSpec& spec = problem.spec;
  const NoiseStream& noise = problem.noise;
  RangeSigns signs;
  if (spec.rotate != 0) set_signs(source, range, signs);
  const TensorScale& scale = cast_args.scale;
  // `counter` has words 1 to 3 of random_block()'s counters; the index fits word 0.
  const TileCast cast{.source = tile_source(source),
                      .range = range,
                      .signs = spec.rotate != 0 ? signs.of_block : nullptr,
                      .rounding = spec.round == Rounding::nearest      ? TileRounding::nearest
                                  : spec.round == Rounding::stochastic ? TileRounding::stochastic
                                                                       : TileRounding::stochastic_published,
                      .four_over_six = spec.scale == ScaleRule::four_over_six,
                      .square = spec.block == BlockShape::square,
                      .encode = scale.encode,
                      .decode = scale.decode,
                      .multiplier = scale.encode * (1.0f / range_of(spec)),
                      .key = {static_cast<uint32_t>(noise.seed), static_cast<uint32_t>(noise.seed >> 32)},
                      .counter = {noise.micro_batch << 8, noise.step,
                                  (noise.tensor_id & 0xFFFFFFu) | static_cast<uint32_t>(noise.purpose) << 24},
                      .tiles = storage.layout == OperandLayout::tiles,
                      .codes = cast_args.codes,
                      .block_scales = cast_args.block_scales};
  kernels->cast(cast);
}

void QuantizeJob::cast(const RowBlockRange& range) {
  if (kernels != nullptr) return cast_tiles(tile_range(range));
  RowBlockMaxima largest;
  for_each_row_block(range, [&](const RowBlockBounds& bounds) {
    RowBlock row_block;
    load_row_block(source, bounds, row_block);
    const RowBlockMaxima here = cast_row_block(cast_args, bounds, row_block);
    largest = {std::max(largest.amax, here.amax), std::max(largest.corrected, here.corrected)};
  });
  amax.include(largest.amax);
  corrected.include(largest.corrected);
}

void QuantizeJob::finish() {
  if (corrects_post_hoc(problem.spec)) {
    cast_args.scale = tensor_scale_of(float_of_bits(corrected.value()), largest_for_scale(problem.spec));
    const auto blocks = static_cast<size_t>(div_ceil<int64_t>(source.rows, lanes) * (source.inner / lanes));
    parallel_for(blocks, size_t{1} << 9, [&](size_t begin, size_t end) {
      round_corrected_scales(cast_args, static_cast<int64_t>(begin), static_cast<int64_t>(end));
    });
  }
  const float largest = float_of_bits(amax.value());
  float* tensor_scale = storage.tensor_scale.as<float>();
  const float decode = storage.outer_scales.empty() ? cast_args.scale.decode : 1.0f;
  tensor_scale[0] = is_finite(largest) ? decode : std::numeric_limits<float>::quiet_NaN();
  tensor_scale[1] = largest;
}

// A pair of operands is made from squares of the source with this side, which stay in the L2 cache.
constexpr int64_t pair_side = 128;

RowBlockRange transposed(const RowBlockRange& range) {
  return {range.first_position, range.last_position, range.first_row, range.last_row};
}

// Calls body(job, range) for ranges that cover every operand: those of one operand, or of a pair, square by square
// of the source.
template <class Body>
void for_each_range(std::span<QuantizeJob*> jobs, Body body) {
  if (jobs.empty()) return;
  const RowBlockSource& first = jobs[0]->source;
  const bool pair = jobs.size() == 2;
  const int64_t rows = pair ? pair_side : (first.transpose ? 16 : 2) * lanes;
  const int64_t positions = pair ? pair_side : (first.transpose ? pair_side : longest_range);
  const RowBlockRanges cuts(first, rows, positions);
  parallel_for(cuts.count(), 1, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) {
      const RowBlockRange range = cuts.range(index);
      for (QuantizeJob* job : jobs) {
        body(*job, job->source.transpose == first.transpose ? range : transposed(range));
      }
    }
  });
}

// Finds the amax of the operands that need it. One pass covers those that are rotated; it also finds the amax of the
// source before the rotation where a SIMD kernel does so at little cost. Otherwise that takes a pass over contiguous
// memory.
void find_amax(std::span<QuantizeJob*> jobs) {
  std::array<QuantizeJob*, 2> rotated{};
  size_t rotated_count = 0;
  std::array<QuantizeJob*, 2> plain{};
  size_t plain_count = 0;
  for (QuantizeJob* job : jobs) {
    if (!needs_amax_pass(job->problem)) continue;
    if (job->problem.spec.rotate != 0) {
      rotated[rotated_count++] = job;
    } else {
      plain[plain_count++] = job;
    }
  }
  const bool together = plain_count > 0 && rotated_count > 0 && rotated[0]->kernels != nullptr;
  SharedMax of_source;
  for_each_range(std::span(rotated).first(rotated_count), [&](QuantizeJob& job, const RowBlockRange& range) {
    job.include_amax(range, together && &job == rotated[0] ? &of_source : nullptr);
  });
  if (plain_count > 0 && !together) take_amax(plain[0]->problem.source, of_source);
  for (size_t i = 0; i < plain_count; ++i) plain[i]->amax.include(of_source.value());
}

// Makes at most two operands from one source.
void run_jobs(std::span<QuantizeJob*> jobs) {
  find_amax(jobs);
  for (QuantizeJob* job : jobs) {
    job->set_scale(job->problem.amax != 0 ? job->problem.amax : float_of_bits(job->amax.value()));
  }
  for_each_range(jobs, [](QuantizeJob& job, const RowBlockRange& range) { job.cast(range); });
  for (QuantizeJob* job : jobs) job->finish();
}

}  // namespace

RowBlockMaxima cast_row_block(const CastProblem& problem, const RowBlockBounds& bounds, const RowBlock& row_block) {
  switch (traits_of(problem.spec.format).block_scale) {
    case ScaleCode::none: return cast_fp8(problem, bounds, row_block);
    case ScaleCode::e8m0: return cast_mx(problem, bounds, row_block);
    case ScaleCode::e4m3: break;
  }
  return problem.spec.round == Rounding::ms_eden ? cast_ms_eden(problem, bounds, row_block)
                                                 : cast_nvfp4(problem, bounds, row_block);
}

const CastKernels* cast_kernels_of(InstructionSet level) {
  static constexpr KernelTable<const CastKernels*> kernels = {
      NIBBLE_ON_X86(.avx512 = &cast_kernels_avx512, .avx512_vnni = &cast_kernels_avx512_vnni)};
  return kernels.at(level);
}

QuantizedTensor quantize_with(InstructionSet level, const QuantizeProblem& problem, const QuantizedTensor& storage) {
  check_source(problem, storage);
  if (!is_quantized(problem.spec.format)) return plain_operand(problem, storage);
  QuantizeJob job(level, problem, storage);
  std::array<QuantizeJob*, 1> jobs{&job};
  run_jobs(jobs);
  return storage;
}

QuantizedPair quantize_pair_with(InstructionSet level, const QuantizePairProblem& problem) {
  const bool both = is_quantized(problem.rows.spec.format) && is_quantized(problem.columns.spec.format);
  if (!both) {
    return {quantize_with(level, problem.rows, problem.rows_storage),
            quantize_with(level, problem.columns, problem.columns_storage)};
  }
  check_pair(problem);
  QuantizeJob rows(level, problem.rows, problem.rows_storage);
  QuantizeJob columns(level, problem.columns, problem.columns_storage);
  std::array<QuantizeJob*, 2> jobs{&rows, &columns};
  run_jobs(jobs);
  return {problem.rows_storage, problem.columns_storage};
}

QuantizedTensor quantize(const QuantizeProblem& problem, const QuantizedTensor& storage) {
  return quantize_with(instruction_set(), problem, storage);
}

QuantizedPair quantize_pair(const QuantizePairProblem& problem) {
  return quantize_pair_with(instruction_set(), problem);
}

QuantizedTensor requantize(const QuantizeProblem& problem, const QuantizedTensor& saved,
                           const QuantizedTensor& storage) {
  dequantize(saved, problem.source);
  return cpu::quantize(problem, storage);
}

bool source_was_finite(const QuantizedTensor& operand) {
  if (!is_quantized(operand.format)) return true;
  const float* const scales = operand.tensor_scale.as<float>();
  bool finite = true;
  for (int64_t i = 1; i < operand.tensor_scale.elements(); i += 2) finite = finite && is_finite(scales[i]);
  return finite;
}

void record_operand(const QuantizeProblem& problem, const QuantizedTensor& operand,
                    const OperandObservations& observations) {
  if (!is_quantized(operand.format)) return;
  if (!cpu::source_was_finite(operand)) {
    *observations.non_finite.as<int64_t>() += std::max<int64_t>(1, cpu::count_non_finite(problem.source));
  }
  if (observations.observed_amax.empty()) return;
  float& observed = *observations.observed_amax.as<float>();
  observed = std::max(observed, operand.tensor_scale.as<float>()[1]);
}
void record_requantized(const QuantizeProblem& problem, const QuantizedTensor&, const QuantizedTensor& operand,
                        const OperandObservations& observations) {
  cpu::record_operand(problem, operand, observations);
}

}  // namespace cpu

int64_t quantize_scratch_floats(const OperandSpec& spec, int64_t rows, int64_t inner) {
  return corrects_post_hoc(spec) ? round_up<int64_t>(rows, 16) * (inner / 16) : 0;
}

QuantizedTensor quantize(const QuantizeProblem& problem, const QuantizedTensor& storage) {
  const ProfileScope scope(OperatorFamily::quantize, "quantize");
  check_supported(problem.spec, "operand");
  NIBBLE_CHECK(problem.spec.from == Source::original, "the caller decides what the source is");
  return NIBBLE_DISPATCH(problem.source.device(), quantize, problem, storage);
}

QuantizedPair quantize_pair(const QuantizePairProblem& problem) {
  const ProfileScope scope(OperatorFamily::quantize, "quantize_pair");
  check_supported(problem.rows.spec, "operand");
  check_supported(problem.columns.spec, "operand");
  return NIBBLE_DISPATCH(problem.rows.source.device(), quantize_pair, problem);
}

QuantizedTensor requantize(const QuantizeProblem& problem, const QuantizedTensor& saved,
                           const QuantizedTensor& storage) {
  const ProfileScope scope(OperatorFamily::quantize, "requantize");
  check_supported(problem.spec, "operand");
  NIBBLE_CHECK(problem.spec.from == Source::original, "the caller decides what is saved");
  NIBBLE_CHECK(problem.source.dtype() == DType::f32 && problem.source.elements() == saved.rows * saved.inner &&
                   (saved.inner == 0 || problem.source.cols() == saved.inner),
               "memory for the saved values: f32 [rows, inner]");
  return NIBBLE_DISPATCH(problem.source.device(), requantize, problem, saved, storage);
}

bool source_was_finite(const QuantizedTensor& operand) {
  return NIBBLE_DISPATCH(operand.tensor_scale.device(), source_was_finite, operand);
}

void record_operand(const QuantizeProblem& problem, const QuantizedTensor& operand,
                    const OperandObservations& observations) {
  NIBBLE_DISPATCH(observations.non_finite.device(), record_operand, problem, operand, observations);
}

void record_requantized(const QuantizeProblem& problem, const QuantizedTensor& saved, const QuantizedTensor& operand,
                        const OperandObservations& observations) {
  NIBBLE_DISPATCH(observations.non_finite.device(), record_requantized, problem, saved, operand, observations);
}

int64_t count_non_finite(const Tensor& tensor) {
  return NIBBLE_DISPATCH(tensor.device(), count_non_finite, tensor);
}

}  // namespace nibble
