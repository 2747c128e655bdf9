// Tiles of operands in shared memory, and sums with the bits of the CPU's (quant/gemm/cpu/packed_matmul.h in bf16,
// small_matmul of quant/gemm/gemm.h in f32), for the exact kernels of attention. This header is internal to attention.
//
// A block of 256 threads has a tile of 64 x 64 scores; thread (x, y) of 16 x 16 has rows y + 16 r and columns x + 16 c,
// so that the sixteen threads of a row are the sixteen lanes of the CPU's sums over it.
#pragma once

#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "dist/base/vectorize.h"
#include "dist/device/launch.cuh"
#include "model/ops/attention/attention_blocks.h"
#include "model/ops/row/device_math.cuh"
#include "model/ops/row/storage.h"

namespace nibble::cuda::exact_attention {

constexpr int tile = 64;  // queries or keys of a block
constexpr int lanes = static_cast<int>(LaneSum::lanes);
constexpr int threads = lanes * lanes;
constexpr int share = tile / lanes;       // rows, and columns of scores, of a thread
constexpr int depth = 32;                 // inner elements that are in shared memory at a time; even
constexpr int depth_stride = depth + 1;   // odd: rows start in different banks
constexpr int weight_stride = tile + 16;  // two rows of sixteen neighbours fill the banks
constexpr int weight_floats = tile * weight_stride;
constexpr int operand_floats = 2 * tile * depth_stride;
constexpr float smallest_normal = 0x1p-126f;
static_assert(tile == nibble::attention::block_size && threads == 256 && depth * 2 * tile <= operand_floats);

// One operand: for every sequence and head a matrix [sequence_length, head_dim].
template <class T>
struct Heads {
  T* data;
  int64_t row_stride, sequence_stride, head_stride;  // elements

  __device__ __forceinline__ T* row(int sequence, int head, int position) const {
    return data + sequence * sequence_stride + head * head_stride + position * row_stride;
  }
};

// The operands for query heads, key heads and value heads of qkv, and for the output.
template <class T>
struct QkvHeads {
  Heads<T> query, key, value;

  QkvHeads(T* qkv, const AttentionShape& shape) {
    const int64_t features = shape.qkv_features();
    const auto from = [&](int64_t head) {
      return Heads<T>{qkv + head * shape.head_dim, features, shape.sequence_length * features, shape.head_dim};
    };
    query = from(0);
    key = from(shape.query_heads);
    value = from(shape.query_heads + shape.kv_heads);
  }
};
template <class T>
Heads<T> output_heads(T* output, const AttentionShape& shape) {
  const int64_t features = shape.output_features();
  return {output, features, shape.sequence_length * features, shape.head_dim};
}

// The part of the shape that kernels need.
struct Sizes {
  int sequences, sequence_length, query_heads, kv_heads, head_dim;
  float scale;
  bool aligned;  // rows of heads start at multiples of 16 bytes

  __device__ __forceinline__ int heads_a_kv_head() const { return query_heads / kv_heads; }
};

// The document starts of all sequences, if there is a mask: nibble::attention::DocumentStarts for kernels.
template <bool masked>
struct DocumentStarts {
  const int32_t* data;  // [sequences, sequence_length]

  // Returns the start of the document of one query; 0 for a position beyond the sequence.
  __device__ __forceinline__ int of(const Sizes& sizes, int sequence, int position) const {
    if (!masked || position >= sizes.sequence_length) return 0;
    return data[static_cast<int64_t>(sequence) * sizes.sequence_length + position];
  }
  // Returns the first key of the first tile that the tile of queries beginning at `query` sees. It never decreases with
  // `query`.
  __device__ __forceinline__ int first_key(const Sizes& sizes, int sequence, int query) const {
    return of(sizes, sequence, query) / tile * tile;
  }
};

// Returns the index of a row in log_sum_exp and similar arrays [sequences, query_heads, sequence_length].
__device__ __forceinline__ int64_t row_of_statistics(const Sizes& sizes, int sequence, int head, int position) {
  return (static_cast<int64_t>(sequence) * sizes.query_heads + head) * sizes.sequence_length + position;
}

// Returns true if heads can be read 16 bytes at a time.
template <class T>
bool rows_are_aligned(const AttentionShape& shape, std::initializer_list<const void*> operands) {
  bool aligned = shape.head_dim % static_cast<int64_t>(16 / sizeof(T)) == 0;
  for (const void* operand : operands) aligned = aligned && reinterpret_cast<uintptr_t>(operand) % 16 == 0;
  return aligned;
}

template <class T>
Sizes sizes_of(const AttentionShape& shape, std::initializer_list<const void*> operands) {
  return {.sequences = narrow<int>(shape.sequences),
          .sequence_length = narrow<int>(shape.sequence_length),
          .query_heads = narrow<int>(shape.query_heads),
          .kv_heads = narrow<int>(shape.kv_heads),
          .head_dim = narrow<int>(shape.head_dim),
          .scale = nibble::attention::score_scale(shape),
          .aligned = rows_are_aligned<T>(shape, operands)};
}

// Rows of one operand in global memory. A tile has zeros for rows beyond them.
template <class T>
struct Source {
  const T* data;
  int64_t row_stride;
  int rows, columns;
  bool aligned;
};

// The arithmetic of products. In bf16, subnormal operands and results are zeros of their sign. (A sum that rounds to
// the smallest normal number counts as normal here, whatever it was before it was rounded.)
template <class T>
struct Arithmetic;
template <>
struct Arithmetic<float> {
  static __device__ __forceinline__ float flushed(float value) { return value; }
  static __device__ __forceinline__ float rounded(float value) { return value; }
  // Returns the sum with the products of a pair of the inner axis added.
  static __device__ __forceinline__ float add_pair(float2 a, float even, float odd, float sum) {
    return std::fma(a.y, odd, std::fma(a.x, even, sum));
  }
  static __device__ __forceinline__ float add_last(float a, float b, float sum) { return std::fma(a, b, sum); }
};
template <>
struct Arithmetic<BFloat16> {
  static __device__ __forceinline__ float flushed(float value) {
    return fabsf(value) < smallest_normal ? value * 0.0f : value;
  }
  static __device__ __forceinline__ float rounded(float value) { return flushed(to_float(bf16_nearest(value))); }
  static __device__ __forceinline__ float add_pair(float2 a, float even, float odd, float sum) {
    return flushed(std::fma(a.x, even, flushed(std::fma(a.y, odd, sum))));
  }
  // The odd member of the last pair is zero.
  static __device__ __forceinline__ float add_last(float a, float b, float sum) {
    return flushed(std::fma(a, b, sum + 0.0f));
  }
};

// tile[row * stride + column] = source, in the form that products take. Loops here and in add_products are not
// unrolled, because addresses of several steps do not fit in the registers beside the sums.
template <class T, int rows, int columns, int stride>
__device__ __forceinline__ void load_tile(const Source<T>& source, float* shared) {
  constexpr int width = 16 / sizeof(T);
  constexpr int parts = columns / width;
  if (!source.aligned) {
#pragma unroll 1
    for (int i = threadIdx.x; i < rows * columns; i += threads) {
      const int row = i / columns;
      const int column = i % columns;
      const bool inside = row < source.rows && column < source.columns;
      const float value = inside ? to_float(source.data[row * source.row_stride + column]) : 0.0f;
      shared[row * stride + column] = Arithmetic<T>::flushed(value);
    }
    return;
  }
#pragma unroll 1
  for (int i = threadIdx.x; i < rows * parts; i += threads) {
    const int row = i / parts;
    const int column = i % parts * width;
    uint4 bits = make_uint4(0, 0, 0, 0);
    if (row < source.rows && column < source.columns) {
      bits = *reinterpret_cast<const uint4*>(source.data + row * source.row_stride + column);
    }
    T elements[width];
    memcpy(static_cast<void*>(elements), &bits, sizeof bits);
    alignas(16) float values[width];
#pragma unroll
    for (int k = 0; k < width; ++k) values[k] = Arithmetic<T>::flushed(to_float(elements[k]));
    float* const destination = shared + row * stride + column;
#pragma unroll
    for (int k = 0; k < width; k += 4) {
      if constexpr (stride % 4 == 0) {
        *reinterpret_cast<float4*>(destination + k) =
            make_float4(values[k], values[k + 1], values[k + 2], values[k + 3]);
      } else {
#pragma unroll
        for (int member = 0; member < 4; ++member) destination[k + member] = values[k + member];
      }
    }
  }
}

// sums[r][c] += the products of row y + 16 r of `left` [row, inner] and column x + 16 c of `right`, over `count` inner
// elements in the order of the CPU. All but the last call for a sum have an even count.
template <class T, int left_stride, int right_inner_stride, int right_column_stride, int columns>
__device__ __forceinline__ void add_products(const float* left, const float* right, int count,
                                             float (&sums)[share][columns]) {
  const float* const a = left + threadIdx.x / lanes * left_stride;
  const float* const b = right + threadIdx.x % lanes * right_column_stride;
  const int whole = count / 2 * 2;
#pragma unroll 1
  for (int k = 0; k < whole; k += 2) {
    float2 pair[share];
#pragma unroll
    for (int r = 0; r < share; ++r) {
      const float* const left_pair = a + r * lanes * left_stride + k;
      pair[r] = make_float2(left_pair[0], left_pair[1]);
    }
#pragma unroll
    for (int c = 0; c < columns; ++c) {
      const float* const right_pair = b + c * lanes * right_column_stride + k * right_inner_stride;
      const float even = right_pair[0];
      const float odd = right_pair[right_inner_stride];
#pragma unroll
      for (int r = 0; r < share; ++r) sums[r][c] = Arithmetic<T>::add_pair(pair[r], even, odd, sums[r][c]);
    }
  }
  if (whole == count) return;
#pragma unroll
  for (int c = 0; c < columns; ++c) {
    const float other = b[c * lanes * right_column_stride + whole * right_inner_stride];
#pragma unroll
    for (int r = 0; r < share; ++r) {
      sums[r][c] = Arithmetic<T>::add_last(a[r * lanes * left_stride + whole], other, sums[r][c]);
    }
  }
}

// sums = left right^T; rows of both are rows of heads. `operands` is shared memory of operand_floats.
template <class T>
__device__ __forceinline__ void multiply_rows(Source<T> left, Source<T> right, int head_dim, float* operands,
                                              float (&sums)[share][share]) {
#pragma unroll
  for (int r = 0; r < share; ++r) {
#pragma unroll
    for (int c = 0; c < share; ++c) sums[r][c] = 0.0f;
  }
  float* const right_tile = operands + tile * depth_stride;
  for (int first = 0; first < head_dim; first += depth) {
    left.columns = right.columns = head_dim - first;
    __syncthreads();
    load_tile<T, tile, depth, depth_stride>(left, operands);
    load_tile<T, tile, depth, depth_stride>(right, right_tile);
    __syncthreads();
    const int count = head_dim - first < depth ? head_dim - first : depth;
    add_products<T, depth_stride, 1, depth_stride>(operands, right_tile, count, sums);
    left.data += depth;
    right.data += depth;
  }
}

// sums += weights right, where weights [row, inner] is in shared memory and right [inner, columns of this block] has
// rows of a head. When it returns, all threads have finished with `weights`.
template <class T, int columns>
__device__ __forceinline__ void multiply_weights(const float* weights, Source<T> right, float* operands,
                                                 float (&sums)[share][columns]) {
  constexpr int width = columns * lanes;
  const int inner = right.rows;
  for (int first = 0; first < inner; first += depth) {
    right.rows = inner - first;
    __syncthreads();
    load_tile<T, depth, width, width>(right, operands);
    __syncthreads();
    const int count = inner - first < depth ? inner - first : depth;
    add_products<T, weight_stride, width, 1>(weights + first, operands, count, sums);
    right.data += depth * right.row_stride;
  }
  __syncthreads();
}

// Returns to all sixteen threads of a row the sum of their values, in the order of LaneSum::total().
__device__ __forceinline__ float total_of_row(float value) {
#pragma unroll
  for (int width = lanes / 2; width > 0; width /= 2) value += __shfl_xor_sync(all_lanes, value, width, lanes);
  return value;
}

// Columns of heads that a thread computes: 64 for a block in the narrow kernels, 128 in the wide ones.
constexpr int narrow_columns = 4;
constexpr int wide_columns = 8;

// Calls function(std::integral_constant<int, columns>) with the columns of a thread that suit head_dim.
template <class Function>
void with_columns(int64_t head_dim, Function&& function) {
  if (head_dim <= narrow_columns * lanes) {
    function(std::integral_constant<int, narrow_columns>{});
  } else {
    function(std::integral_constant<int, wide_columns>{});
  }
}

// Calls function(std::bool_constant<masked>).
template <class Function>
void with_mask(const AttentionShape& shape, Function&& function) {
  if (shape.document_mask) {
    function(std::true_type{});
  } else {
    function(std::false_type{});
  }
}

// Returns null if there are no document starts, which kernels without a mask never read.
inline const int32_t* document_starts_or_null(const Tensor& document_starts) {
  return document_starts.empty() ? nullptr : document_starts.as<int32_t>();
}

}  // namespace nibble::cuda::exact_attention
