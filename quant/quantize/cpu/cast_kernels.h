// The SIMD kernels of the quantiser, which quantize.cpp calls and cast_nvfp4_avx512.cpp implements: NVFP4 with the
// rules of NVIDIA's recipe and of four over six. Other rules, and machines without AVX-512, take the row blocks of
// cast.h; the bits are the same. Internal to quant; tests use this header to run every level.
//
// cast_nvfp4_avx512.cpp is compiled with flags that the machine may not have, so this header holds plain data only: an
// inline function here could be emitted there and be picked by the linker for everybody.
#pragma once

#include <cstdint>

#include "quant/isa/instruction_set.h"

namespace nibble {
struct QuantizeProblem;
struct QuantizePairProblem;
struct QuantizedPair;
struct QuantizedTensor;
}  // namespace nibble

namespace nibble::cpu {

// An operand in the memory of its source: element (row, position) is data[row * stride + position], or, where it is the
// transpose, data[position * stride + row].
struct TileSource {
  const void* data;
  bool f32;  // else bf16
  bool transpose;
  int64_t stride;
  int64_t rows;
  int64_t inner;  // a multiple of 16
};

// A part of an operand. first_row and both positions are multiples of 16.
struct TileRange {
  int64_t first_row, last_row;
  int64_t first_position, last_position;
};

enum class TileRounding : uint8_t { nearest, stochastic, stochastic_published };

struct TileCast {
  TileSource source;
  TileRange range;
  // The signs of a rotation of 16 points, one word for each block of the range: bit k set multiplies position k by -1.
  // Null: no rotation.
  const uint16_t* signs;
  TileRounding rounding;
  bool four_over_six;  // with squared errors; not with square blocks, nor with stochastic_published
  bool square;
  float encode, decode;  // the tensor scale and its reciprocal
  float multiplier;      // block amax * multiplier is rounded to E4M3
  uint32_t key[2];       // Philox's key
  uint32_t counter[3];   // words 1 to 3 of Philox's counter; word 0 is the index of the block, which must be below 2^32
  bool tiles;            // the operand is in tiles, else in rows
  uint8_t* codes;
  uint8_t* block_scales;
};

// The bits of the largest magnitudes of a range, in the order of amax_of_row_block().
struct TileAmax {
  TileSource source;
  TileRange range;
  const uint16_t* signs;  // as in TileCast
  bool want_plain;        // also find `plain`, the amax of the source before the rotation
  uint32_t rotated, plain;
};

struct CastKernels {
  void (*cast)(const TileCast& problem);
  void (*rotated_amax)(TileAmax& problem);
};

extern const CastKernels cast_kernels_avx512;
extern const CastKernels cast_kernels_avx512_vnni;

// Returns the SIMD kernels of a level, or null where it has none.
const CastKernels* cast_kernels_of(InstructionSet level);

// quantize() and quantize_pair() with the kernels of a level that the machine has.
QuantizedTensor quantize_with(InstructionSet level, const QuantizeProblem& problem, const QuantizedTensor& storage);
QuantizedPair quantize_pair_with(InstructionSet level, const QuantizePairProblem& problem);

}  // namespace nibble::cpu
