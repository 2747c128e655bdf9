// The passes before and after the cast of quant/quantize/cuda/quantize_cast.cuh. They are put on the compute stream;
// the host waits for nothing.
#pragma once

#include "quant/quantize/cuda/quantize_operand.cuh"
#include "quant/tensor/tensor.h"

namespace nibble::cuda {

unsigned patches_of(const SourceMatrix& source);

// Sets tensor_scale = {0, 0} in every operand, from which maxima start.
void clear_tensor_scales(const CastLaunch& problem);

// Finds the amax of operands whose scale comes from it: one pass over contiguous memory where none of them is rotated,
// else one over patches that serves both; saved operands always in patches.
void find_amax(SourceKind kind, const CastLaunch& problem);

// Rounds the block scales of post hoc MS-EDEN, after the cast.
void round_corrected_scales(const CastLaunch& problem);

// Sets tensor_scale[0] of operands that do not have it yet: NaN if the amax is not finite. It comes last of all.
void finish_tensor_scales(const CastLaunch& problem);

// Converts between f32 and bf16, rounding to nearest.
void convert(const Tensor& from, const Tensor& to);

}  // namespace nibble::cuda
