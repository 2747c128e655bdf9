// A part of gemm_codes.inl: the micro-kernel, the loops around it and the epilogue.

ALWAYS_INLINE int32_t read_int(const std::byte* from) {
  int32_t value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
ALWAYS_INLINE float read_float(const std::byte* from) {
  float value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

// Adds one block of 16 of the left panel's rows to sums[rows]. Several rows at once give the processor chains of dot
// products that do not wait for each other.
template <class Dot, int rows>
ALWAYS_INLINE void multiply_rows(const std::byte* left, const IntVector (&values)[kernel_vectors][4],
                                 const Vector (&scales)[kernel_vectors],
                                 const Vector (&constants)[kernel_vectors][Dot::constants],
                                 Vector (*sums)[kernel_vectors]) {
  typename Dot::Sum dots[rows][kernel_vectors];
#pragma GCC unroll 4
  for (int quad = 0; quad < 4; ++quad) {
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const IntVector codes = broadcast_int(read_int(left + quad * kernel_rows * 4 + r * 4));
#pragma GCC unroll 4
      for (int v = 0; v < kernel_vectors; ++v) {
        dots[r][v] =
            quad == 0 ? Dot::first(codes, values[v][0], constants[v]) : Dot::next(dots[r][v], codes, values[v][quad]);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    const Vector left_scale = broadcast(read_float(left + kernel_rows * 16 + r * 4));
#pragma GCC unroll 4
    for (int v = 0; v < kernel_vectors; ++v) {
      sums[r][v] = fused(Dot::scaled(dots[r][v], scales[v], constants[v]), left_scale, sums[r][v]);
    }
  }
}

// Adds `blocks` blocks to c [rows, kernel_columns], rows panel_columns apart: one rounding a block of 16, blocks
// ascending, starting from zero or, to resume, from c. The sums of one block over its scales are exact, so the two
// scales may be applied one after the other.
template <class Dot, int rows>
void multiply_panels(int64_t blocks, const std::byte* left, const std::byte* right, float* c, bool resume) {
  Vector sums[rows][kernel_vectors];
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kernel_vectors; ++v) sums[r][v] = resume ? load(c + r * panel_columns + v * lanes) : Vector{};
  }
  for (int64_t block = 0; block < blocks; ++block) {
    IntVector values[kernel_vectors][4];
    Vector scales[kernel_vectors];
    Vector constants[kernel_vectors][Dot::constants];
#pragma GCC unroll 4
    for (int v = 0; v < kernel_vectors; ++v) {
      const std::byte* record = right + v * lanes / tile_rows * record_bytes<Dot> + v * lanes % tile_rows * 4;
#pragma GCC unroll 4
      for (int quad = 0; quad < 4; ++quad) __builtin_memcpy(&values[v][quad], record + quad * record_line, lanes * 4);
      __builtin_memcpy(&scales[v], record + 4 * record_line, lanes * 4);
#pragma GCC unroll 4
      for (int i = 0; i < Dot::constants; ++i) {
        __builtin_memcpy(&constants[v][i], record + (5 + i) * record_line, lanes * 4);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r + rows_at_once <= rows; r += rows_at_once) {
      multiply_rows<Dot, rows_at_once>(left + r * 4, values, scales, constants, sums + r);
    }
    if constexpr (rows % rows_at_once != 0) {
      constexpr int r = rows - rows % rows_at_once;
      multiply_rows<Dot, rows % rows_at_once>(left + r * 4, values, scales, constants, sums + r);
    }
    left += left_block_bytes;
    right += records * record_bytes<Dot>;
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kernel_vectors; ++v) store(c + r * panel_columns + v * lanes, sums[r][v]);
  }
}

using PanelKernel = void (*)(int64_t, const std::byte*, const std::byte*, float*, bool);
template <class Dot, class Sequence>
struct KernelsByRows;
template <class Dot, int... index>
struct KernelsByRows<Dot, std::integer_sequence<int, index...>> {
  static constexpr PanelKernel of[] = {multiply_panels<Dot, index + 1>...};
};

// --- epilogue --------------------------------------------------------------------------------------------------------
// Where alpha is outside the normal range of FP32, the scaling goes through double: the product of two 24-bit numbers
// is exact there, so that it is rounded once, as in FP32.
template <bool wide>
ALWAYS_INLINE Vector scaled_by(Vector value, double alpha) {
  if constexpr (!wide) return value * broadcast(static_cast<float>(alpha));
  Vector result;
  for (int i = 0; i < lanes; ++i) result[i] = static_cast<float>(static_cast<double>(value[i]) * alpha);
  return result;
}

// Does bf16_nearest() of quant/format/codec.h.
ALWAYS_INLINE Halves to_bf16(Vector value) {
  const auto bits = reinterpret_cast<UnsignedVector>(value);
  const UnsignedVector rounded = bits + 0x7FFFU + ((bits >> 16) & 1U);
  const UnsignedVector chosen = value == value ? rounded : bits | 0x00400000U;
  return narrow(chosen >> 16);
}

// Writes a vector, its first `count` elements, or, past the caches, all of it to where it is aligned.
template <class Element, class Values>
ALWAYS_INLINE void put(Element* to, Values values, int64_t count, bool past_caches) {
  if (past_caches) {
    stream(to, values);
  } else if (count >= lanes) {
    __builtin_memcpy(to, &values, sizeof values);
  } else {
    __builtin_memcpy(to, &values, static_cast<size_t>(count) * sizeof(Element));
  }
}

// Fetches the part of the output that the current sums will be written to, while they are computed.
ALWAYS_INLINE void prefetch_output(const CodeBlock& block, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  const int64_t size = block.output_dtype == DType::bf16 ? 2 : 4;
  for (int64_t i = 0; i < rows; ++i) {
    const char* line = static_cast<const char*>(block.output) + ((row + i) * block.output_stride + column) * size;
    for (int64_t byte = 0; byte < columns * size; byte += 64) __builtin_prefetch(line + byte, 1);
  }
}

enum class Output { bf16, f32, sum };

template <bool wide, Output kind>
ALWAYS_INLINE void write_vector(void* output, int64_t offset, Vector product, int64_t count, double alpha,
                                bool past_caches) {
  const Vector value = scaled_by<wide>(product, alpha);
  if constexpr (kind == Output::bf16) {
    put(static_cast<uint16_t*>(output) + offset, to_bf16(value), count, past_caches);
  } else {
    float* to = static_cast<float*>(output) + offset;
    put(to, kind == Output::sum ? load_up_to(to, count) + value : value, count, past_caches);
  }
}

// Writes c[rows, columns], rows panel_columns apart, to the output from (row, column).
template <bool wide, Output kind>
void write_output(const CodeBlock& block, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* c) {
  void* const output = block.output;
  const double alpha = block.alpha;
  const bool past_caches = block.past_caches;
  for (int64_t i = 0; i < rows; ++i, c += panel_columns) {
    const int64_t offset = (row + i) * block.output_stride + column;
    if (columns == panel_columns) {
#pragma GCC unroll 4
      for (int64_t j = 0; j < panel_columns; j += lanes) {
        write_vector<wide, kind>(output, offset + j, load(c + j), lanes, alpha, past_caches);
      }
    } else {
      for (int64_t j = 0; j < columns; j += lanes) {
        write_vector<wide, kind>(output, offset + j, load(c + j), columns - j, alpha, past_caches);
      }
    }
  }
}

using Writer = void (*)(const CodeBlock&, int64_t, int64_t, int64_t, int64_t, const float*);
template <bool wide>
Writer writer_of(const CodeBlock& block) {
  if (block.output_dtype == DType::bf16) return write_output<wide, Output::bf16>;
  return block.accumulate ? write_output<wide, Output::sum> : write_output<wide, Output::f32>;
}

inline bool needs_wide_alpha(double alpha) {
  const double magnitude = alpha < 0 ? -alpha : alpha;
  constexpr double smallest_normal = 0x1p-126;
  constexpr double largest_normal = 0x1.fffffep127;
  return (magnitude > 0 && magnitude < smallest_normal) || (magnitude > largest_normal && magnitude < __builtin_inf());
}

// --- one block of the output -----------------------------------------------------------------------------------------
constexpr int64_t left_cache_bytes = 512 * 1024;  // bytes of the L2 cache for the left panels
constexpr int64_t min_of(int64_t a, int64_t b) {
  return a < b ? a : b;
}
constexpr int64_t padded(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

// The order in which a block is computed: its rows are unpacked a chunk of the inner axis at a time; in each chunk the
// columns follow panel by panel, a pass of the inner axis at a time. Sums wait in scratch memory between passes.
struct Blocking {
  int64_t rows, columns;  // padded
  int64_t chunk;          // blocks of 16
  int64_t left_bytes, right_bytes;
  bool one_pass, one_chunk;
  int64_t sum_floats;
};
template <class Dot>
Blocking blocking_of(const CodeBlock& block) {
  Blocking blocking{};
  blocking.rows = padded(block.rows, tile_rows);
  blocking.columns = padded(block.columns, panel_columns);
  const int64_t fitting = left_cache_bytes / (blocking.rows / kernel_rows * left_block_bytes);
  const int64_t chunks = fitting >= block.blocks ? 1 : padded(block.blocks, fitting) / fitting;
  blocking.chunk = padded(padded(block.blocks, chunks) / chunks, pass_blocks);
  blocking.one_pass = block.blocks <= pass_blocks;
  blocking.one_chunk = block.blocks <= blocking.chunk;
  blocking.left_bytes =
      padded(blocking.rows / kernel_rows * min_of(blocking.chunk, block.blocks) * left_block_bytes, 64);
  blocking.right_bytes = pass_blocks * records * record_bytes<Dot>;
  blocking.sum_floats =
      (blocking.one_pass ? kernel_rows : blocking.rows) * (blocking.one_chunk ? panel_columns : blocking.columns);
  return blocking;
}
template <class Dot>
size_t scratch_bytes(const CodeBlock& block) {
  const Blocking blocking = blocking_of<Dot>(block);
  return static_cast<size_t>(blocking.left_bytes + blocking.right_bytes + blocking.sum_floats * 4);
}

// One pass: one right panel, from block `first` of the inner axis, times all left panels of the chunk.
struct Pass {
  const std::byte* left;  // at this pass's first block
  int64_t left_stride;    // from panel to panel
  const std::byte* right;
  int64_t depth;
  float* sums;
  int64_t sum_stride;
  int64_t column, columns;
  bool first, last;
};
template <class Dot>
void multiply_pass(const CodeBlock& block, const Pass& pass, Writer write) {
  using Kernels = KernelsByRows<Dot, std::make_integer_sequence<int, kernel_rows>>;
  const std::byte* left = pass.left;
  float* sums = pass.sums;
  for (int64_t i = 0; i < block.rows; i += kernel_rows, left += pass.left_stride, sums += pass.sum_stride) {
    const int64_t rows = min_of(kernel_rows, block.rows - i);
    if (pass.last && !block.past_caches) prefetch_output(block, block.first_row + i, rows, pass.column, pass.columns);
    for (int64_t j = 0; j < pass.columns; j += kernel_columns) {
      const std::byte* right = pass.right + j / tile_rows * record_bytes<Dot> + j % tile_rows * 4;
      Kernels::of[rows - 1](pass.depth, left, right, sums + j, !pass.first);
    }
    if (!pass.last) continue;
    write(block, block.first_row + i, rows, pass.column, pass.columns, sums);
  }
}

template <class Dot>
void multiply(const CodeBlock& block, std::byte* scratch) {
  const Blocking blocking = blocking_of<Dot>(block);
  std::byte* const left = scratch;
  std::byte* const right = left + blocking.left_bytes;
  float* const sums = reinterpret_cast<float*>(right + blocking.right_bytes);
  const Writer write = needs_wide_alpha(block.alpha) ? writer_of<true>(block) : writer_of<false>(block);
  int64_t start = 0;
  do {  // at least once: an empty inner axis gives zeros
    const int64_t chunk = min_of(blocking.chunk, block.blocks - start);
    for (int64_t i = 0; i < blocking.rows; i += tile_rows) {
      unpack_rows(block.a, block.first_row + i, start, chunk, left + i / kernel_rows * chunk * left_block_bytes);
    }
    for (int64_t j = 0; j < block.columns; j += panel_columns) {
      int64_t first = 0;
      do {
        const int64_t depth = min_of(pass_blocks, chunk - first);
        const int64_t column = block.first_column + j;
        unpack_columns<Dot>(block.b, column, start + first, depth, right);
        Pass pass{};
        pass.left = left + first * left_block_bytes;
        pass.left_stride = chunk * left_block_bytes;
        pass.right = right;
        pass.depth = depth;
        pass.sums = blocking.one_chunk ? sums : sums + j * blocking.rows;
        pass.sum_stride = blocking.one_pass ? 0 : kernel_rows * panel_columns;
        pass.column = column;
        pass.columns = min_of(panel_columns, block.columns - j);
        pass.first = start + first == 0;
        pass.last = start + first + depth >= block.blocks;
        multiply_pass<Dot>(block, pass, write);
        first += depth;
      } while (first < chunk);
    }
    start += chunk;
  } while (start < block.blocks);
  if (block.past_caches) fence();
}

template <class Dot>
constexpr CodeKernels make_code_kernels() {
  return {tile_rows, panel_columns, Dot::unpacking_cost, scratch_bytes<Dot>, multiply<Dot>};
}
