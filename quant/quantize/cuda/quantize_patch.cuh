// Patches: a patch is a square of 128 x 128 elements of a source, on which a thread block of the quantiser's kernels
// works. It lies in shared memory, and is read from global memory once, in whichever way, or ways, its operands run. A
// thread takes runs from it: 16 consecutive positions along the inner axis of one operand row, that is, along a row of
// the patch or down a column. Eight neighbouring lanes hold the 128 positions of a row.
#pragma once

#include "dist/device/launch.cuh"
#include "quant/format/codec.h"
#include "quant/format/swizzle.h"

namespace nibble::cuda {

constexpr int patch_side = 128;
constexpr int run_length = 16;
constexpr int runs_across = patch_side / run_length;
constexpr int quantize_threads = 256;

// The kinds of elements of a source: float, BFloat16, or SavedCode, an nvfp4 operand that is decoded as it is read.
struct SavedCode;
enum class SourceKind : uint8_t { f32, bf16, saved };

// A row-major source. `vectors`: every row begins at a multiple of 16 bytes.
struct SourceMatrix {
  const void* data;  // a saved operand has two codes a byte
  int64_t rows, cols;
  bool vectors;
  // The following are set for a saved operand only.
  const uint8_t* block_scales;  // swizzled
  const float* tensor_scale;
};

__device__ __forceinline__ void unpack(const uint4& chunk, float (&values)[4]) {
  values[0] = float_of_bits(chunk.x);
  values[1] = float_of_bits(chunk.y);
  values[2] = float_of_bits(chunk.z);
  values[3] = float_of_bits(chunk.w);
}
__device__ __forceinline__ void unpack(const uint4& chunk, float (&values)[8]) {
  const uint32_t words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = float_of_bits(words[i] << 16);
    values[2 * i + 1] = float_of_bits(words[i] & 0xFFFF0000u);
  }
}

// A patch of float or BFloat16 numbers. Chunks of 16 bytes lie in an order in which lanes that read a row, or 16 rows
// of a square block, or down columns, meet different banks.
template <class T>
class SourcePatch {
 public:
  static constexpr int per_chunk = 16 / static_cast<int>(sizeof(T));
  static constexpr int row_chunks = patch_side / per_chunk;
  static constexpr size_t bytes = sizeof(T) * patch_side * patch_side;

  __device__ __forceinline__ explicit SourcePatch(uint4* memory) : chunks_(memory) {}

  // Loads the patch; elements outside the source are zero. All threads of the block must call it, and a barrier must
  // follow.
  __device__ __forceinline__ void load(const SourceMatrix& source, int64_t first_row, int64_t first_col) {
    constexpr int batch = 8;  // loads in flight
    constexpr int count = patch_side * row_chunks;
    static_assert(count % (batch * quantize_threads) == 0);
    for (int first = static_cast<int>(threadIdx.x); first < count; first += batch * quantize_threads) {
      uint4 loaded[batch];
      for (int i = 0; i < batch; ++i) {
        const int index = first + i * quantize_threads;
        loaded[i] = load_chunk(source, first_row + index / row_chunks, first_col + index % row_chunks * per_chunk);
      }
      for (int i = 0; i < batch; ++i) {
        const int index = first + i * quantize_threads;
        chunks_[chunk_index(index / row_chunks, index % row_chunks)] = loaded[i];
      }
    }
  }

  // Reads positions [16 run, 16 run + 16) of operand row `row`, of the patch or, with `transpose`, of its transpose.
  __device__ __forceinline__ void read(bool transpose, int row, int run, float (&values)[run_length]) const {
    if (transpose) {
      const T* elements = reinterpret_cast<const T*>(chunks_);
      for (int i = 0; i < run_length; ++i) {
        values[i] =
            to_float(elements[chunk_index(run * run_length + i, row / per_chunk) * per_chunk + row % per_chunk]);
      }
    } else {
      constexpr int run_chunks = run_length / per_chunk;
      for (int chunk = 0; chunk < run_chunks; ++chunk) {
        float part[per_chunk];
        unpack(chunks_[chunk_index(row, run * run_chunks + chunk)], part);
        for (int i = 0; i < per_chunk; ++i) values[chunk * per_chunk + i] = part[i];
      }
    }
  }

 private:
  static __device__ __forceinline__ int chunk_index(int row, int chunk) {
    return row * row_chunks + (chunk ^ (((chunk >> 3) ^ row ^ (row >> 4)) & 7));
  }

  static __device__ __forceinline__ uint4 load_chunk(const SourceMatrix& source, int64_t row, int64_t col) {
    uint4 chunk = make_uint4(0, 0, 0, 0);
    if (row >= source.rows || col >= source.cols) return chunk;
    const T* from = static_cast<const T*>(source.data) + row * source.cols + col;
    if (source.vectors) return *reinterpret_cast<const uint4*>(from);
    uint32_t words[4] = {};
    for (int i = 0; i < per_chunk; ++i) {
      const uint32_t bits = col + i < source.cols ? bits_of(to_float(from[i])) : 0u;
      if constexpr (sizeof(T) == 4) {
        words[i] = bits;
      } else {
        words[i / 2] |= i % 2 == 0 ? bits >> 16 : bits;
      }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }

  friend class SourcePatch<SavedCode>;
  uint4* chunks_;
};

// A patch of a saved operand. A code times its block scale is exact in BF16; that times the scale of the tensor is
// rounded to FP32, once, as in dequantize().
template <>
class SourcePatch<SavedCode> {
 public:
  static constexpr size_t bytes = SourcePatch<BFloat16>::bytes;

  __device__ __forceinline__ explicit SourcePatch(uint4* memory) : patch_(memory) {}

  // Loads the patch under the conditions of SourcePatch::load. A thread decodes one run of four rows, 32 apart: one
  // access to the swizzled scales holds their scales.
  __device__ __forceinline__ void load(const SourceMatrix& source, int64_t first_row, int64_t first_col) {
    constexpr int rows_apart = quantize_threads / runs_across;
    static_assert(rows_apart == 32);
    tensor_scale_ = *source.tensor_scale;
    const int row = static_cast<int>(threadIdx.x) / runs_across;
    const int run = static_cast<int>(threadIdx.x) % runs_across;
    const int64_t col = first_col + run * run_length;
    uint4 scales = make_uint4(0, 0, 0, 0);
    uint2 codes[4];
    const bool inside = col < source.cols;
    if (inside) {
      const int64_t at = swizzled_scale_offset(first_row + row, col / run_length / 4 * 4, source.cols / run_length);
      scales = *reinterpret_cast<const uint4*>(source.block_scales + at);
    }
    for (int i = 0; i < 4; ++i) {
      const int64_t from = first_row + row + i * rows_apart;
      codes[i] = make_uint2(0, 0);
      if (inside && from < source.rows) {
        const auto* bytes_of_row = static_cast<const uint8_t*>(source.data) + from * (source.cols / 2);
        codes[i] = *reinterpret_cast<const uint2*>(bytes_of_row + col / 2);
      }
    }
    const uint32_t words[4] = {scales.x, scales.y, scales.z, scales.w};
    for (int i = 0; i < 4; ++i) {
      const float scale = e4m3_to_float(words[i] >> (run % 4 * 8) & 0xFFu);
      uint4* chunks = patch_.chunks_;
      const int to = row + i * rows_apart;
      chunks[SourcePatch<BFloat16>::chunk_index(to, 2 * run)] = decoded(codes[i].x, scale);
      chunks[SourcePatch<BFloat16>::chunk_index(to, 2 * run + 1)] = decoded(codes[i].y, scale);
    }
  }

  __device__ __forceinline__ void read(bool transpose, int row, int run, float (&values)[run_length]) const {
    patch_.read(transpose, row, run, values);
    for (float& value : values) value *= tensor_scale_;
  }

 private:
  static __device__ __forceinline__ uint4 decoded(uint32_t codes, float scale) {
    uint32_t pairs[4];
    for (int i = 0; i < 4; ++i) {
      const uint32_t even = bits_of(e2m1_to_float(codes >> (8 * i) & 15u) * scale);
      const uint32_t odd = bits_of(e2m1_to_float(codes >> (8 * i + 4) & 15u) * scale);
      pairs[i] = even >> 16 | (odd & 0xFFFF0000u);
    }
    return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
  }

  SourcePatch<BFloat16> patch_;
  float tensor_scale_;
};

// The run of the operand's patch that a lane takes. 32 groups of a warp's width are a patch.
struct RunPosition {
  int row, run;
};
constexpr int run_groups = patch_side * runs_across / warp_lanes;

// Returns the run of this lane in a group: four rows of 128 positions; or, for square blocks, two blocks side by side,
// with the low four bits of a lane as its row.
__device__ __forceinline__ RunPosition run_position(int group, bool square) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  if (square) return {group / 4 * 16 + lane % 16, group % 4 * 2 + lane / 16};
  return {group * 4 + lane / runs_across, lane % runs_across};
}

// ---- Exchange among lanes ----

__device__ __forceinline__ uint32_t amax_bits(const float (&values)[run_length]) {
  uint32_t largest = 0;
  for (int i = 0; i < run_length; ++i) {
    const uint32_t magnitude = bits_of(values[i]) & 0x7FFFFFFFu;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

// Returns the largest value of `count` neighbouring lanes, a power of two.
__device__ __forceinline__ uint32_t largest_of_lanes(uint32_t value, int count) {
  for (int distance = 1; distance < count; distance *= 2) {
    const uint32_t other = __shfl_xor_sync(all_lanes, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

}  // namespace nibble::cuda
