// The GEMM kernels on decoded values of one instruction-set level. A source that includes this file defines before, in
// an anonymous namespace,
//   lanes, Vector, UnsignedVector, IntVector            vectors of that many 32-bit elements
//   fused(a, b, c)                                      a * b + c rounded once, per lane
//   broadcast(float)
//   plain_rows, plain_vectors                           register block of the micro-kernel
//   block_rows, block_columns                           multiples of the register block
//   row_step, column_step                               multiples of these waste no work
// and then includes it, still inside the namespace: everything here must have internal linkage, because the sources are
// compiled for different machines. For the same reason nothing here calls an inline function of a shared header, unless
// that is forced inline.
//
// Shapes: a [m, k] and b [n, k] are the operands, and c or the output is [m, n]; k is the inner axis. In small_matmul()
// b is [k, n].

#define ALWAYS_INLINE inline __attribute__((always_inline))
#include "quant/isa/gemm_vectors.inl"

#include "quant/gemm/cpu/gemm_panels.inl"

// --- micro-kernel ----------------------------------------------------------------------------------------------------
constexpr int64_t plain_columns = plain_vectors * lanes;
constexpr int64_t plain_depth = 256;  // inner elements a panel: a B panel stays in the L1 cache

// Adds to c [rows, plain_columns] the chain of fused multiply-adds over k, starting from zero or, to resume, from c.
template <int rows>
void multiply_plain(int64_t depth, const float* a, const float* b, float* c, int64_t c_stride, bool resume) {
  Vector sums[rows][plain_vectors];
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < plain_vectors; ++v) sums[r][v] = resume ? load(c + r * c_stride + v * lanes) : Vector{};
  }
  for (int64_t k = 0; k < depth; ++k, a += plain_rows, b += plain_columns) {
    Vector right[plain_vectors];
#pragma GCC unroll 4
    for (int v = 0; v < plain_vectors; ++v) right[v] = load(b + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      const Vector left = broadcast(a[r]);
#pragma GCC unroll 4
      for (int v = 0; v < plain_vectors; ++v) sums[r][v] = fused(left, right[v], sums[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < plain_vectors; ++v) store(c + r * c_stride + v * lanes, sums[r][v]);
  }
}

using PlainKernel = void (*)(int64_t, const float*, const float*, float*, int64_t, bool);
template <class Sequence>
struct KernelsByRows;
template <int... index>
struct KernelsByRows<std::integer_sequence<int, index...>> {
  static constexpr PlainKernel plain[] = {multiply_plain<index + 1>...};
};
using PlainKernels = KernelsByRows<std::make_integer_sequence<int, plain_rows>>;

// --- one block of the output -----------------------------------------------------------------------------------------
// The memory for a block's results: c [rows, columns], inside a larger matrix or a buffer.
struct Target {
  float* c;
  int64_t stride;
};

// Runs a micro-kernel on one register block; one that is cut off at the right goes through a full one of its own.
template <class Kernel, class Panel>
ALWAYS_INLINE void run_register_block(Kernel kernel, int64_t depth, const Panel* a, const Panel* b, Target target,
                                      int64_t rows, int64_t columns, int64_t full_columns, bool resume) {
  if (columns == full_columns) {
    kernel(depth, a, b, target.c, target.stride, resume);
    return;
  }
  alignas(64) float buffer[plain_rows * plain_columns] = {};
  for (int64_t i = 0; i < rows && resume; ++i) {
    for (int64_t j = 0; j < columns; ++j) buffer[i * full_columns + j] = target.c[i * target.stride + j];
  }
  kernel(depth, a, b, buffer, full_columns, resume);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) target.c[i * target.stride + j] = buffer[i * full_columns + j];
  }
}

constexpr int64_t panel_slack = 64;  // bytes behind the panels (pack_along_inner)
constexpr int64_t a_panel_bytes = (block_rows * plain_depth * 4 + panel_slack + 63) / 64 * 64;
constexpr int64_t b_panel_bytes = (block_columns * plain_depth * 4 + panel_slack + 63) / 64 * 64;
static_assert(block_rows % plain_rows == 0 && block_columns % plain_columns == 0);

// The rows and columns of the operands that one block needs.
struct Extent {
  int64_t first_row, rows, first_column, columns;
};

inline void multiply_plain_block(const GemmOperand& a, const GemmOperand& b, int64_t inner, const Extent& extent,
                                 Target target, bool resume, std::byte* scratch) {
  float* const a_panels = reinterpret_cast<float*>(scratch);
  float* const b_panels = reinterpret_cast<float*>(scratch + a_panel_bytes);
  for (int64_t k = 0; k < inner; k += plain_depth) {
    const int64_t depth = inner - k < plain_depth ? inner - k : plain_depth;
    pack_panels<plain_rows>(a, extent.first_row, extent.rows, k, depth, a_panels);
    pack_panels<plain_columns>(b, extent.first_column, extent.columns, k, depth, b_panels);
    for (int64_t j = 0; j < extent.columns; j += plain_columns) {
      const int64_t columns = extent.columns - j < plain_columns ? extent.columns - j : plain_columns;
      for (int64_t i = 0; i < extent.rows; i += plain_rows) {
        const int64_t rows = extent.rows - i < plain_rows ? extent.rows - i : plain_rows;
        run_register_block(PlainKernels::plain[rows - 1], depth, a_panels + i * depth, b_panels + j * depth,
                           {target.c + i * target.stride + j, target.stride}, rows, columns, plain_columns,
                           resume || k > 0);
      }
    }
  }
}

// --- epilogue --------------------------------------------------------------------------------------------------------
// Where alpha is outside the normal range of FP32, the scaling goes through double: the product of two 24-bit numbers
// is exact there, so that it is rounded once, as in FP32.
template <bool wide>
ALWAYS_INLINE float scaled(float value, double alpha, float narrow_alpha) {
  return wide ? static_cast<float>(static_cast<double>(value) * alpha) : value * narrow_alpha;
}

template <bool wide>
void write_output(const GemmBlock& block, const float* c, int64_t c_stride) {
  const float narrow_alpha = static_cast<float>(block.alpha);
  for (int64_t i = 0; i < block.rows; ++i, c += c_stride) {
    const int64_t offset = (block.first_row + i) * block.output_stride + block.first_column;
    if (block.output_dtype == DType::bf16) {
      BFloat16* to = static_cast<BFloat16*>(block.output) + offset;
      for (int64_t j = 0; j < block.columns; ++j) to[j] = bf16_nearest(scaled<wide>(c[j], block.alpha, narrow_alpha));
    } else if (block.accumulate) {
      float* to = static_cast<float*>(block.output) + offset;
      for (int64_t j = 0; j < block.columns; ++j) to[j] += scaled<wide>(c[j], block.alpha, narrow_alpha);
    } else {
      float* to = static_cast<float*>(block.output) + offset;
      for (int64_t j = 0; j < block.columns; ++j) to[j] = scaled<wide>(c[j], block.alpha, narrow_alpha);
    }
  }
}

constexpr size_t gemm_scratch_bytes =
    static_cast<size_t>(a_panel_bytes + b_panel_bytes + block_rows * block_columns * 4);

inline void gemm_block(const GemmBlock& block, std::byte* scratch) {
  float* const c = reinterpret_cast<float*>(scratch + a_panel_bytes + b_panel_bytes);
  const int64_t stride = block.columns;
  if (block.inner == 0) {
    __builtin_memset(c, 0, static_cast<size_t>(block.rows * stride) * sizeof(float));
  } else {
    multiply_plain_block(block.a, block.b, block.inner,
                         {block.first_row, block.rows, block.first_column, block.columns}, {c, stride}, false, scratch);
  }
  const double magnitude = block.alpha < 0 ? -block.alpha : block.alpha;
  constexpr double smallest_normal = 0x1p-126;
  constexpr double largest_normal = 0x1.fffffep127;
  const bool wide =
      (magnitude > 0 && magnitude < smallest_normal) || (magnitude > largest_normal && magnitude < __builtin_inf());
  if (wide) {
    write_output<true>(block, c, stride);
  } else {
    write_output<false>(block, c, stride);
  }
}

inline void small_matmul_blocks(const SmallMatmul& problem, std::byte* scratch) {
  const GemmOperand a{problem.a, Format::f32, problem.m, problem.a_row_stride, problem.a_col_stride};
  const GemmOperand b{problem.b, Format::f32, problem.n, problem.b_col_stride, problem.b_row_stride};
  for (int64_t i = 0; i < problem.m; i += block_rows) {
    const int64_t rows = problem.m - i < block_rows ? problem.m - i : block_rows;
    for (int64_t j = 0; j < problem.n; j += block_columns) {
      const int64_t columns = problem.n - j < block_columns ? problem.n - j : block_columns;
      float* c = problem.c + i * problem.c_row_stride + j;
      if (problem.k == 0 && !problem.accumulate) {
        for (int64_t row = 0; row < rows; ++row) {
          __builtin_memset(c + row * problem.c_row_stride, 0, static_cast<size_t>(columns) * sizeof(float));
        }
      }
      multiply_plain_block(a, b, problem.k, {i, rows, j, columns}, {c, problem.c_row_stride}, problem.accumulate,
                           scratch);
    }
  }
}

constexpr GemmKernels make_kernels() {
  return {block_rows, block_columns, row_step, column_step, gemm_scratch_bytes, gemm_block, small_matmul_blocks};
}
#undef ALWAYS_INLINE
