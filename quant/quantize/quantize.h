// Makes GEMM operands from tensors according to an OperandSpec, and reads them back.
//
// NVFP4 round to nearest, with 1x16 and 16x16 blocks, with and without the 16-point rotation, is bit-exact to
// Transformer Engine's formulas, order of FP32 operations included; docs/numerics.md lists every step of every rule.
// The result does not depend on threads, tiling or instruction set.
// Implemented in quantize.cpp and quantize.cu; reading back in dequantize.cpp and dequantize.cu; observations on a GPU
// in examine.cu.
#pragma once

#include "quant/format/hadamard.h"
#include "quant/format/philox.h"
#include "quant/recipe/operand_spec.h"
#include "quant/tensor/quantized_tensor.h"
#include "quant/tensor/tensor.h"

namespace nibble {

struct QuantizeProblem {
  Tensor source;           // f32 or bf16, [rows, inner]; or [inner, rows] when transpose is set
  bool transpose = false;  // the operand is the source's transpose: its inner axis is the source's first axis
  OperandSpec spec;        // `from` is for the caller, who knows the forward operand; here it must be `original`
  // Rounding noise. Block `index` of the operand = row * (inner/block) + block within the row.
  NoiseStream noise = {};
  // Drawn signs: both operands of a GEMM must be given the same. Its purpose is hadamard_signs.
  SignStream signs = {};
  // Of at least quantize_scratch_floats() elements, f32; contents mean nothing afterwards.
  Tensor scratch = {};
  // Delayed scaling: the amax to scale by; 0: the tensor's own.
  float amax = 0;
};

// 0 for all but post hoc MS-EDEN.
int64_t quantize_scratch_floats(const OperandSpec& spec, int64_t rows, int64_t inner);

// Fills `storage` (from allocate_operand with the same spec, dtype and shape) and returns the operand. For f32 and bf16
// formats equal to the source's dtype the operand is a view of the source, which must outlive it.
QuantizedTensor quantize(const QuantizeProblem& problem, const QuantizedTensor& storage);

// Two operands from one source, one of them transposed: the same bits as two calls of quantize(), but the source is
// read from memory once a pass.
struct QuantizedPair {
  QuantizedTensor rows, columns;
};
struct QuantizePairProblem {
  QuantizeProblem rows, columns;  // the same source; columns.transpose is set
  QuantizedTensor rows_storage, columns_storage;
};
QuantizedPair quantize_pair(const QuantizePairProblem& problem);

// quantize() of the values of another operand: the bits of dequantize(saved, problem.source) and quantize(problem,
// ...). problem.source is f32 [saved.rows, saved.inner], memory for those values; afterwards it is them, or, on a
// device that decodes nvfp4 as it reads it, what it was.
QuantizedTensor requantize(const QuantizeProblem& problem, const QuantizedTensor& saved,
                           const QuantizedTensor& storage);

// The operand's exact values, tensor scale included, rounded once to `output`'s dtype: [rows, inner]. Of a rotated
// operand: the values of the orthogonal rotation.
void dequantize(const QuantizedTensor& operand, const Tensor& output);
// Those of rows [first_row, first_row + output's rows) of the operand, wherever its tiles end.
void dequantize_rows(const QuantizedTensor& operand, int64_t first_row, const Tensor& output);

// Whether every element that quantize() met was finite. The amax pass finds out at no cost: a NaN or infinite element
// (also one that only the rotation or its rounding to BF16 made) is kept in the amax, tensor_scale = {NaN, amax}, so
// that the operand decodes to NaN everywhere and any product with it is NaN. Codes and block scales then mean nothing.
// Formats that are not quantised answer true: there NaN travels by itself.
bool source_was_finite(const QuantizedTensor& operand);

// What the maker of an operand keeps of it, where the operand is, so that nobody has to wait for a device.
struct OperandFindings {
  Tensor non_finite = {};  // i64 [1]: grows by the number of elements of the source that are not finite; by 1 where all
                           // are, but the rotation made some that are not
  Tensor met_amax = {};    // f32 [1]: becomes the operand's amax where that is larger; or empty
};
// `operand` is what quantize(problem, ...) returned. Nothing is done for formats that are not quantised.
void examine(const QuantizeProblem& problem, const QuantizedTensor& operand, const OperandFindings& findings);
// The same of what requantize(problem, saved, ...) returned.
void examine_requantized(const QuantizeProblem& problem, const QuantizedTensor& saved, const QuantizedTensor& operand,
                         const OperandFindings& findings);

// Number of NaN and infinite elements.
int64_t count_non_finite(const Tensor& tensor);

namespace cuda {
QuantizedTensor quantize(const QuantizeProblem& problem, const QuantizedTensor& storage);
QuantizedPair quantize_pair(const QuantizePairProblem& problem);
QuantizedTensor requantize(const QuantizeProblem& problem, const QuantizedTensor& saved,
                           const QuantizedTensor& storage);
void dequantize_rows(const QuantizedTensor& operand, int64_t first_row, const Tensor& output);
bool source_was_finite(const QuantizedTensor& operand);
void examine(const QuantizeProblem& problem, const QuantizedTensor& operand, const OperandFindings& findings);
void examine_requantized(const QuantizeProblem& problem, const QuantizedTensor& saved, const QuantizedTensor& operand,
                         const OperandFindings& findings);
int64_t count_non_finite(const Tensor& tensor);
}  // namespace cuda

}  // namespace nibble
