// What quantize.cpp and the instruction-set twins of the quantiser (cast_nvfp4_avx512.cpp, cast_nvfp4_avx512_vnni.cpp)
// agree on: NVFP4 with the rules of NVIDIA's recipe and of four over six. Other rules, and machines without AVX-512,
// take the slabs of cast.h; the bits are the same. Internal to quant; tests use it to run every level.
//
// The twins are compiled with flags that the machine may not have, so this header holds plain data only: an inline
// function here could be emitted by a twin and be picked by the linker for everybody.
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

// An operand as its source holds it: element (row, position) is data[row * stride + position], or, where it is the
// transpose, data[position * stride + row].
struct TileSource {
  const void* data;
  bool f32;  // else bf16
  bool transpose;
  int64_t stride;
  int64_t rows;
  int64_t inner;  // a multiple of 16
};

// first_row and both positions are multiples of 16.
struct TileRange {
  int64_t first_row, last_row;
  int64_t first_position, last_position;
};

enum class TileRounding : uint8_t { nearest, stochastic, stochastic_published };

struct TileCast {
  TileSource source;
  TileRange range;
  const uint16_t* signs;  // rotation of 16 points: of each block of the range, bit k set: position k times -1; or null.
  TileRounding rounding;
  bool four_over_six;  // with squared errors; not with square blocks, nor with stochastic_published
  bool square;
  float encode, decode;  // of the tensor scale
  float multiplier;      // block amax * multiplier is what is rounded to E4M3
  uint32_t key[2];       // of Philox
  uint32_t counter[3];   // words 1 to 3; word 0 is the index of the block, which must be below 2^32
  bool tiles;            // layout of the operand
  uint8_t* codes;
  uint8_t* block_scales;
};

// Bits of the largest magnitude, as amax_of_slab() has it.
struct TileAmax {
  TileSource source;
  TileRange range;
  const uint16_t* signs;  // as above
  bool want_plain;        // also that of the source as it is
  uint32_t rotated, plain;
};

struct CastKernels {
  void (*cast)(const TileCast& problem);
  void (*rotated_amax)(TileAmax& problem);
};

extern const CastKernels cast_kernels_avx512;
extern const CastKernels cast_kernels_avx512_vnni;

// Null where the level has none.
const CastKernels* cast_kernels_of(InstructionSet level);

// quantize() and quantize_pair() on a level that the machine has.
QuantizedTensor quantize_with(InstructionSet level, const QuantizeProblem& problem, const QuantizedTensor& storage);
QuantizedPair quantize_pair_with(InstructionSet level, const QuantizePairProblem& problem);

}  // namespace nibble::cpu
