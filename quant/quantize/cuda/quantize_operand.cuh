// The problem of the quantiser's kernels: a source and the operands that are made from it.
#pragma once

#include "quant/format/hadamard.h"
#include "quant/format/philox.h"
#include "quant/quantize/cuda/quantize_patch.cuh"
#include "quant/recipe/operand_spec.h"

namespace nibble::cuda {

// The part of an OperandSpec that decides which code runs.
struct CastRules {
  ElementCode element;
  ScaleCode block_scale;
  ScaleRule scale;
  Rounding round;
  EdenCorrection correction;
  bool square;
  bool outer;  // an FP32 scale for 128 elements of a row
};

// Where the FP32 scale of the tensor comes from, and when.
enum class ScaleOrigin : uint8_t {
  amax_pass,  // the tensor's amax, found by a pass before
  given,      // an amax of earlier steps
  fixed,      // there is none: MX, outer scales
  corrected   // post hoc MS-EDEN: the largest block scale, known after the cast
};

struct Rotation {
  int points;  // 0: none
  int count;
  bool drawn;
  SignStream signs;
};

struct OperandCast {
  CastRules rules;
  Rotation rotation;
  NoiseStream noise;
  bool transpose;
  int64_t rows, inner;
  float reciprocal_range;  // nvfp4: 1 / range
  float largest;           // the magnitude that the amax becomes
  ScaleOrigin origin;
  float given_amax;
  TensorScale fixed_scale;

  uint8_t* codes;         // [rows, inner] or, for codes of four bits, [rows, inner/2]
  uint8_t* block_scales;  // swizzled
  float* outer_scales;    // [rows, inner/128]
  float* corrected;       // post hoc MS-EDEN: [rows, inner/16]
  // tensor_scale is {decode scale, amax}. While the operand is made, it holds the largest corrected scale and the amax
  // found so far.
  float* tensor_scale;
};

// The problem of a launch: one source, one operand or two.
struct CastLaunch {
  SourceMatrix source;
  int count;
  OperandCast operands[2];
};

__device__ __forceinline__ bool is_post_hoc(const CastRules& rules) {
  return rules.round == Rounding::ms_eden &&
         (rules.correction == EdenCorrection::post_hoc || rules.correction == EdenCorrection::post_hoc_published);
}

// The codes of a run, 16 of 4 bits in x and y, or of 8 bits in all words; and the number that goes into block_scales,
// or, for post hoc MS-EDEN, into `corrected`.
struct CastRun {
  uint4 codes;
  uint32_t block_scale;
  float corrected;
};

// One run in the registers of a thread. Runs beyond the operand's edges are absent; their values are zeros.
struct Run {
  float values[run_length];
  int64_t row, position;  // place in the operand
  int lane_run;           // 0..7: the run within its 128 positions
  bool present;
};

// Packs the codes that code(i) returns for element i.
template <class Code>
__device__ __forceinline__ uint4 pack_codes(Code code) {
  uint2 packed = make_uint2(0, 0);
  for (int i = 0; i < 8; ++i) {
    packed.x |= code(i) << (4 * i);
    packed.y |= code(8 + i) << (4 * i);
  }
  return make_uint4(packed.x, packed.y, 0, 0);
}

}  // namespace nibble::cuda
