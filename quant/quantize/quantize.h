// Makes GEMM operands from tensors according to an OperandSpec, and reads them back.
//
// NVFP4 round to nearest, with 1x16 and 16x16 blocks, with and without the 16-point rotation, is bit-exact to
// Transformer Engine's formulas, order of FP32 operations included; docs/numerics.md lists every step of every rule.
// The result does not depend on threads, on how the work is cut, or on the instruction set. Implemented in quantize.cpp
// and quantize.cu; dequantize.cpp and dequantize.cu read operands back; record_operand.cu holds the observations on a
// GPU.
#pragma once

#include "dist/device/operator.h"
#include "quant/format/hadamard.h"
#include "quant/format/philox.h"
#include "quant/recipe/operand_spec.h"
#include "quant/tensor/quantized_tensor.h"
#include "quant/tensor/tensor.h"

namespace nibble {

struct QuantizeProblem {
  Tensor source;           // f32 or bf16, [rows, inner]; or [inner, rows] when transpose is set
  bool transpose = false;  // the operand is the source's transpose: its inner axis is the source's first axis
  OperandSpec spec;        // `from` must be `original`: the caller, who has the forward operand, resolves it
  // The stream of the rounding noise. Block `index` of the operand = row * (inner/block) + block within the row.
  NoiseStream noise = {};
  // The stream of drawn signs, with purpose hadamard_signs: both operands of a GEMM must be given the same.
  SignStream signs = {};
  // Memory of at least quantize_scratch_floats() elements, f32. Its contents afterwards have no meaning.
  Tensor scratch = {};
  // The amax to scale by with delayed scaling; 0: the tensor's own amax.
  float amax = 0;
};

// Returns the number of f32 elements of scratch memory that quantize() needs: 0 except for post hoc MS-EDEN.
int64_t quantize_scratch_floats(const OperandSpec& spec, int64_t rows, int64_t inner);

// Fills `storage` (from allocate_operand with the same spec, dtype and shape) and returns the operand. For f32 and bf16
// formats equal to the source's dtype the operand is a view of the source, which must outlive it.
NIBBLE_OPERATOR(QuantizedTensor quantize(const QuantizeProblem& problem, const QuantizedTensor& storage));

// Makes two operands from one source, one of them transposed. The bits are those of two calls of quantize(), but each
// pass reads the source from memory once.
struct QuantizedPair {
  QuantizedTensor rows, columns;
};
struct QuantizePairProblem {
  QuantizeProblem rows, columns;  // both have the same source; columns.transpose is set
  QuantizedTensor rows_storage, columns_storage;
};
NIBBLE_OPERATOR(QuantizedPair quantize_pair(const QuantizePairProblem& problem));

// Quantises the values of another operand: the bits are those of dequantize(saved, problem.source) followed by
// quantize(problem, ...). problem.source is f32 [saved.rows, saved.inner], memory for those values. Afterwards it holds
// them, or, on a device that decodes nvfp4 as it reads it, is unchanged.
NIBBLE_OPERATOR(QuantizedTensor requantize(const QuantizeProblem& problem, const QuantizedTensor& saved,
                                           const QuantizedTensor& storage));

// Writes the operand's exact values, tensor scale included, rounded once to `output`'s dtype: [rows, inner]. The values
// of a rotated operand are those of the orthogonal rotation.
void dequantize(const QuantizedTensor& operand, const Tensor& output);
// Does so for rows [first_row, first_row + output's rows) of the operand, which may begin and end inside a tile.
NIBBLE_OPERATOR(void dequantize_rows(const QuantizedTensor& operand, int64_t first_row, const Tensor& output));

// Returns whether every element that quantize() read was finite. The amax pass finds this out at no cost: a NaN or
// infinite element (also one that only the rotation or its rounding to BF16 made) is kept in the amax, tensor_scale =
// {NaN, amax}, so that the operand decodes to NaN everywhere and any GEMM with it gives NaN. Codes and block scales
// then have no meaning. Formats that are not quantised return true: there NaN travels by itself.
NIBBLE_OPERATOR(bool source_was_finite(const QuantizedTensor& operand));

// Observations about an operand, kept on the operand's device so that nobody has to wait for a device.
struct OperandObservations {
  // i64 [1]: grows by the number of elements of the source that are not finite; by 1 where all are finite, but the
  // rotation made some that are not.
  Tensor non_finite = {};
  // f32 [1]: becomes the operand's amax where that is larger; or empty.
  Tensor observed_amax = {};
};
// Adds the observations about `operand`, the result of quantize(problem, ...). Does nothing for formats that are not
// quantised.
NIBBLE_OPERATOR(void record_operand(const QuantizeProblem& problem, const QuantizedTensor& operand,
                                    const OperandObservations& observations));
// Adds the observations about `operand`, the result of requantize(problem, saved, ...).
NIBBLE_OPERATOR(void record_requantized(const QuantizeProblem& problem, const QuantizedTensor& saved,
                                        const QuantizedTensor& operand, const OperandObservations& observations));

// Returns the number of NaN and infinite elements.
NIBBLE_OPERATOR(int64_t count_non_finite(const Tensor& tensor));

}  // namespace nibble
