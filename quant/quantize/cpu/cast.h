// Rounds slabs into codes and scales: one source file for each family of formats and rules. Internal to quant;
// quantize.cpp drives them, docs/numerics.md section 3 states what they compute.
// The files are cast_nvfp4.cpp, cast_eden.cpp and cast_scaled.cpp.
#pragma once

#include <cstdint>

#include "quant/format/philox.h"
#include "quant/quantize/cpu/slab.h"
#include "quant/recipe/operand_spec.h"
#include "quant/tensor/quantized_tensor.h"

namespace nibble::cpu {

struct CastProblem {
  OperandSpec spec;
  NoiseStream noise;
  TensorScale scale{1, 1};
  int64_t rows = 0;
  int64_t inner = 0;
  OperandLayout layout = OperandLayout::rows;
  uint8_t* codes = nullptr;         // [rows, inner] or, four bits, [rows, inner/2], or tiles
  uint8_t* block_scales = nullptr;  // [rows, inner/block], or of tiles
  float* outer_scales = nullptr;    // [rows, inner/128]
  // Post hoc MS-EDEN: block scales before the tensor scale is known, [ceil(rows/16), inner/16 blocks, 16 lanes].
  float* corrected = nullptr;
};

// Bits of the largest magnitude of the slab and, post hoc MS-EDEN, of its largest corrected scale.
struct SlabMaxima {
  uint32_t amax = 0;
  uint32_t corrected = 0;
};

SlabMaxima cast_nvfp4(const CastProblem& problem, const SlabPlace& place, const Slab& slab);
SlabMaxima cast_ms_eden(const CastProblem& problem, const SlabPlace& place, const Slab& slab);
SlabMaxima cast_mx(const CastProblem& problem, const SlabPlace& place, const Slab& slab);
SlabMaxima cast_fp8(const CastProblem& problem, const SlabPlace& place, const Slab& slab);

// Post hoc MS-EDEN, when the tensor scale is known: the E4M3 scales of tiles [begin, end), of 16 blocks each, counted
// as in `corrected`.
void round_corrected_scales(const CastProblem& problem, int64_t begin, int64_t end);

}  // namespace nibble::cpu
