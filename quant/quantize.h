// Makes GEMM operands from tensors according to an OperandSpec, and reads them back.
//
// NVFP4 round to nearest, with 1x16 and 16x16 blocks, with and without the 16-point rotation, is bit-exact to
// Transformer Engine's formulas, order of FP32 operations included; docs/numerics.md lists every step. The result does
// not depend on threads, tiling or instruction set.
#pragma once

#include "quant/operand_spec.h"
#include "quant/philox.h"
#include "quant/quantized_tensor.h"
#include "quant/tensor.h"

namespace nibble {

struct QuantizeProblem {
  Tensor source;           // f32 or bf16, [rows, inner]; or [inner, rows] when transpose is set
  bool transpose = false;  // the operand is the source's transpose: its inner axis is the source's first axis
  OperandSpec spec;        // `from` is for the caller, who knows the forward operand; here it must be `original`
  // Stochastic rounding only. Block `index` of the operand = row * (inner/16) + block within the row.
  NoiseStream noise;
};

// Fills `storage` (from allocate_operand with the same spec, dtype and shape) and returns the operand. For f32 and bf16
// formats equal to the source's dtype the operand is a view of the source, which must outlive it.
QuantizedTensor quantize(const QuantizeProblem& problem, const QuantizedTensor& storage);

// The operand's exact values, tensor scale included, rounded once to `output`'s dtype: [rows, inner].
void dequantize(const QuantizedTensor& operand, const Tensor& output);

// Whether every element that quantize() met was finite. The amax pass finds out at no cost: a NaN or infinite element
// (also one that only the rotation or its rounding to BF16 made) is kept in the amax, tensor_scale = {NaN, amax}, so
// that the operand decodes to NaN everywhere and any product with it is NaN. Codes and block scales then mean nothing.
// Formats without a tensor scale answer true: there NaN travels by itself.
bool source_was_finite(const QuantizedTensor& operand);

// Number of NaN and infinite elements.
int64_t count_non_finite(const Tensor& tensor);

}  // namespace nibble
