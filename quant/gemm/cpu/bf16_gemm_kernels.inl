// The BF16 GEMM kernels of one instruction-set level. A source that includes this file defines before, in an anonymous
// namespace,
//   lanes, Vector, UnsignedVector            vectors of that many 32-bit elements
//   broadcast(const Element*)                one element in every lane, as a Vector
//   members, Element                         2, float: a pair of the inner axis is two steps of an FP32 multiply-add
//                                            1, uint32_t: it is one step of a dot-product instruction
//   multiply_add(left, right, sum)           one step, per lane
//   load_words(const uint16_t*)              `lanes` words, each in 32 bits
//   load_words(const uint16_t*, count)       the first `count` <= lanes of them, then zeros
//   round_pair(low, high)                    2 * lanes BF16 numbers, rounded as bf16_nearest does, in low's order first
//   register_rows, register_vectors          register block of the micro-kernel; register_rows <= lanes
//   depth_pairs                              pairs a panel, a multiple of lanes: a right panel stays in the L1 cache
//   block_rows, block_columns                multiples of the register block
// and then includes it, still inside the namespace: everything here must have internal linkage, because the sources are
// compiled for different machines. For the same reason nothing here calls an inline function of a shared header, unless
// that is forced inline.
//
// Shapes: a [m, k] and b [n, k] are the operands, left and right, and c or the output is [m, n]; k is the inner axis,
// which is taken in pairs. In packed_matmul() b is [k, n].

#include "quant/gemm/cpu/bf16_gemm_panels.inl"

constexpr int64_t depth = 2 * depth_pairs;  // inner elements a panel

// --- micro-kernel ----------------------------------------------------------------------------------------------------
struct AlongInner {
  static constexpr int64_t row = row_stride, member = member_stride, pair = 1;
};
struct AcrossInner {
  static constexpr int64_t row = 1, member = lanes, pair = members * lanes;
};

// Adds to c [rows, register_columns] the chain of multiply-adds over pairs, starting from zero or, to resume, from c.
template <class Left, int rows>
void multiply_registers(int64_t pairs, const Element* a, const Element* b, float* c, int64_t c_stride, bool resume) {
  Vector sums[rows][register_vectors];
  const float* from = c;
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r, from += c_stride) {
#pragma GCC unroll 4
    for (int v = 0; v < register_vectors; ++v) sums[r][v] = resume ? load(from + v * lanes) : Vector{};
  }
  __asm__("" : "+r"(c));  // without this the compiler keeps the address of every row until the end, in memory
  for (int64_t pair = 0; pair < pairs; ++pair, a += Left::pair) {
#pragma GCC unroll 2
    for (int64_t member = 0; member < members; ++member, b += register_columns) {
      Vector right[register_vectors];
#pragma GCC unroll 4
      for (int v = 0; v < register_vectors; ++v) right[v] = load(b + v * lanes);
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
        const Vector left = broadcast(a + r * Left::row + member * Left::member);
#pragma GCC unroll 4
        for (int v = 0; v < register_vectors; ++v) sums[r][v] = multiply_add(left, right[v], sums[r][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r, c += c_stride) {
#pragma GCC unroll 4
    for (int v = 0; v < register_vectors; ++v) store(c + v * lanes, sums[r][v]);
  }
}

using MicroKernel = void (*)(int64_t, const Element*, const Element*, float*, int64_t, bool);
template <class Left, class Sequence>
struct KernelsByRows;
template <class Left, int... index>
struct KernelsByRows<Left, std::integer_sequence<int, index...>> {
  static constexpr MicroKernel kernels[] = {multiply_registers<Left, index + 1>...};
};

// Left panels of some rows and `pairs` pairs, and the kernels that multiply them.
struct LeftPanels {
  const Element* panels;
  int64_t block_stride;  // elements from one register block's rows to the next's
  const MicroKernel* kernels;
};
ALWAYS_INLINE LeftPanels left_panels(const Bf16Operand& operand, int64_t pairs, const Element* panels) {
  using Rows = std::make_integer_sequence<int, register_rows>;
  if (operand.inner_stride == 1) return {panels, register_rows * row_stride, KernelsByRows<AlongInner, Rows>::kernels};
  return {panels, pairs * members * lanes, KernelsByRows<AcrossInner, Rows>::kernels};
}

// --- memory ----------------------------------------------------------------------------------------------------------
constexpr int64_t register_elements = register_rows * register_columns;
constexpr int64_t round_to_line(int64_t elements) {
  return (elements + 15) / 16 * 16;
}
constexpr int64_t left_block =
    register_rows * member_stride > lanes* depth_pairs ? register_rows* member_stride : lanes* depth_pairs;
constexpr int64_t left_elements = round_to_line(block_rows / register_rows * members * left_block);
constexpr int64_t right_elements = round_to_line(depth_pairs * members * register_columns);
static_assert(block_rows % register_rows == 0 && block_columns % register_columns == 0 && depth_pairs % lanes == 0);
static_assert(sizeof(Element) == sizeof(float) && register_rows <= lanes);

struct Scratch {
  Element* left;
  Element* right;
  float* sums;
};
ALWAYS_INLINE Scratch divide_scratch(std::byte* scratch) {
  Element* const left = reinterpret_cast<Element*>(scratch);
  Element* const right = left + left_elements;
  return {left, right, reinterpret_cast<float*>(right + right_elements)};
}
constexpr size_t scratch_bytes =
    static_cast<size_t>(left_elements + right_elements + block_rows * block_columns) * sizeof(float);

// --- one block of a GEMM ---------------------------------------------------------------------------------------------
// The place of a register block in the output.
struct OutputBlock {
  int64_t offset;  // offset of its first element in the output
  int64_t rows, columns;
};

enum class Write : uint8_t { bf16, f32, add };

template <Write how>
void write_whole_rows(const Bf16GemmBlock& block, const OutputBlock& output, const float* sums) {
  const Vector alpha = Vector{} + block.alpha;
  constexpr int64_t element = how == Write::bf16 ? 2 : 4;
  char* to = static_cast<char*>(block.output) + output.offset * element;
  for (int64_t i = 0; i < output.rows; ++i, sums += register_columns, to += block.output_stride * element) {
    if constexpr (how == Write::bf16) {
#pragma GCC unroll 2
      for (int64_t j = 0; j < register_columns; j += 2 * lanes) {
        store(to + j * element, round_pair(load(sums + j) * alpha, load(sums + j + lanes) * alpha));
      }
    } else {
#pragma GCC unroll 4
      for (int64_t j = 0; j < register_columns; j += lanes) {
        const Vector value = load(sums + j) * alpha;
        store(to + j * element, how == Write::add ? load(to + j * element) + value : value);
      }
    }
  }
}
ALWAYS_INLINE void write_rows(const Bf16GemmBlock& block, const OutputBlock& output, const float* sums) {
  if (block.output_dtype == DType::bf16) return write_whole_rows<Write::bf16>(block, output, sums);
  if (block.accumulate) return write_whole_rows<Write::add>(block, output, sums);
  write_whole_rows<Write::f32>(block, output, sums);
}

// Writes a register block that the output's right edge cuts off, through a full row of memory.
inline __attribute__((noinline)) void write_cut_rows(const Bf16GemmBlock& block, const OutputBlock& output,
                                                     const float* sums) {
  alignas(64) float row[register_columns] = {};
  Bf16GemmBlock line = block;
  line.output = row;
  const int64_t element = block.output_dtype == DType::bf16 ? 2 : 4;
  char* to = static_cast<char*>(block.output) + output.offset * element;
  for (int64_t i = 0; i < output.rows; ++i, sums += register_columns, to += block.output_stride * element) {
    __builtin_memcpy(row, to, static_cast<size_t>(output.columns * element));
    write_rows(line, {0, 1, register_columns}, sums);
    __builtin_memcpy(to, row, static_cast<size_t>(output.columns * element));
  }
}

// Memory that will be read soon: `rows` pieces of `bytes`, `stride` bytes apart.
struct Ahead {
  const char* first;
  int64_t stride, rows, bytes;
};
ALWAYS_INLINE Ahead ahead_of(const Bf16Operand& operand, int64_t first_row, int64_t rows, int64_t first_k,
                             int64_t count) {
  if (count <= 0) return {nullptr, 0, 0, 0};
  const auto* first =
      reinterpret_cast<const char*>(operand.values + first_row * operand.row_stride + first_k * operand.inner_stride);
  if (operand.inner_stride == 1) return {first, operand.row_stride * 2, rows, count * 2};
  return {first, operand.inner_stride * 2, count, rows * 2};
}
ALWAYS_INLINE void prefetch_rows(const Ahead& ahead, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end && row < ahead.rows; ++row) {
    const char* const from = ahead.first + row * ahead.stride;
    const int64_t into_line = reinterpret_cast<uintptr_t>(from) % 64;
    for (int64_t byte = 0; byte < into_line + ahead.bytes; byte += 64) __builtin_prefetch(from + byte, 0, 2);
  }
}
ALWAYS_INLINE void prefetch_output(const Bf16GemmBlock& block, const OutputBlock& output) {
  const int64_t element = block.output_dtype == DType::bf16 ? 2 : 4;
  char* to = static_cast<char*>(block.output) + output.offset * element;
  for (int64_t i = 0; i < output.rows; ++i, to += block.output_stride * element) {
    for (int64_t byte = 0; byte < output.columns * element; byte += 64) __builtin_prefetch(to + byte, 1, 3);
  }
}

ALWAYS_INLINE void prefetch_sums(const float* sums) {
  for (int64_t i = 0; i < register_elements; i += 16) __builtin_prefetch(sums + i, 1, 3);
}

// One pass over `count` inner elements from k on.
struct Pass {
  int64_t k, count;
  bool first, last;
};

// So many register blocks are packed at a time, to use up the cache lines of operands that are read across.
constexpr int64_t left_group = 4;

// Computes the register blocks of one right panel: columns [j, j + columns) of the block. The turn of the first panel
// packs the left operand, some register blocks at a time, while the rows of the next ones are being fetched.
ALWAYS_INLINE void multiply_panel(const Bf16GemmBlock& block, const Pass& pass, int64_t j, const Scratch& scratch,
                                  float* sums, int64_t next_sums) {
  const int64_t columns = smaller(register_columns, block.columns - j);
  const int64_t pairs = (pass.count + 1) / 2;
  const LeftPanels left = left_panels(block.a, pairs, scratch.left);
  const int64_t register_blocks = (block.rows + register_rows - 1) / register_rows;
  const bool more = j + register_columns < block.columns;
  const int64_t next_j = more ? j + register_columns : 0;
  const int64_t next_k = more ? pass.k : pass.k + pass.count;
  const Ahead next = ahead_of(block.b, block.first_column + next_j, smaller(register_columns, block.columns - next_j),
                              next_k, smaller(pass.count, block.inner - next_k));
  const int64_t share = (next.rows + register_blocks - 1) / register_blocks;
  for (int64_t index = 0; index < register_blocks; ++index, sums += next_sums) {
    const int64_t i = index * register_rows;
    const int64_t rows = smaller(register_rows, block.rows - i);
    Element* const a = scratch.left + index * left.block_stride;
    if (j == 0 && index % left_group == 0) {
      const int64_t here = smaller(left_group * register_rows, block.rows - i);
      pack_left(block.a, block.first_row + i, here, pass.k, pass.count, a);
      const int64_t rows_left = smaller(left_group * register_rows, block.rows - i - here);
      if (rows_left > 0) {
        prefetch_rows(ahead_of(block.a, block.first_row + i + here, rows_left, pass.k, pass.count), 0, depth);
      }
    }
    prefetch_rows(next, index * share, (index + 1) * share);
    if (!pass.first) prefetch_sums(sums + next_sums);
    const OutputBlock output{(block.first_row + i) * block.output_stride + block.first_column + j, rows, columns};
    if (pass.last) prefetch_output(block, output);
    left.kernels[rows - 1](pairs, a, scratch.right, sums, register_columns, !pass.first);
    if (pass.last && columns == register_columns) write_rows(block, output, sums);
    if (pass.last && columns < register_columns) write_cut_rows(block, output, sums);
  }
}

void gemm_block(const Bf16GemmBlock& block, std::byte* memory) {
  const Scratch scratch = divide_scratch(memory);
  const int64_t passes = block.inner > depth ? (block.inner + depth - 1) / depth : 1;
  const int64_t even_depth = ((block.inner + passes - 1) / passes + 2 * lanes - 1) / (2 * lanes) * (2 * lanes);
  const int64_t sum_step = passes == 1 ? 0 : register_elements;
  const int64_t blocks_down = (block.rows + register_rows - 1) / register_rows;
  int64_t k = 0;
  do {
    const int64_t count = smaller(even_depth, block.inner - k);
    const Pass pass{k, count, k == 0, k + count == block.inner};
    float* sums = scratch.sums;
    for (int64_t j = 0; j < block.columns; j += register_columns, sums += blocks_down * sum_step) {
      const int64_t columns = smaller(register_columns, block.columns - j);
      pack_right_panel(block.b, block.first_column + j, columns, k, count, scratch.right);
      multiply_panel(block, pass, j, scratch, sums, sum_step);
    }
    k += count;
  } while (k < block.inner);
}

// --- small products with a packed right operand ----------------------------------------------------------------------
// A packed right operand consists of the right panels of all pairs, one after another.
inline int64_t packed_panel_elements(int64_t k) {
  return (k + 1) / 2 * members * register_columns;
}
inline size_t packed_bytes(int64_t k, int64_t n) {
  return static_cast<size_t>((n + register_columns - 1) / register_columns * packed_panel_elements(k)) *
         sizeof(Element);
}
void pack_right_operand(const MatrixBf16& b, int64_t k, int64_t n, std::byte* packed) {
  Element* panel = reinterpret_cast<Element*>(packed);
  const Bf16Operand operand{b.data, n, b.col_stride, b.row_stride};
  for (int64_t j = 0; j < n; j += register_columns, panel += packed_panel_elements(k)) {
    pack_right_panel(operand, j, smaller(register_columns, n - j), 0, k, panel);
  }
}

// Computes a register block that is cut off at the right, through a full one of its own.
inline __attribute__((noinline)) void multiply_cut_block(MicroKernel kernel, int64_t pairs, const Element* a,
                                                         const Element* b, const PackedMatmul& problem, float* c,
                                                         int64_t rows, int64_t columns, bool resume) {
  alignas(64) float sums[register_elements] = {};
  const size_t bytes = static_cast<size_t>(columns) * sizeof(float);
  for (int64_t i = 0; i < rows && resume; ++i) {
    __builtin_memcpy(sums + i * register_columns, c + i * problem.c_row_stride, bytes);
  }
  kernel(pairs, a, b, sums, register_columns, resume);
  for (int64_t i = 0; i < rows; ++i) {
    __builtin_memcpy(c + i * problem.c_row_stride, sums + i * register_columns, bytes);
  }
}

// Computes rows [first, first + rows) of c.
inline void multiply_some_rows(const PackedMatmul& problem, int64_t first, int64_t all_rows, Element* panels) {
  const Bf16Operand a{problem.a.data, problem.m, problem.a.row_stride, problem.a.col_stride};
  int64_t k = 0;
  do {
    const int64_t count = smaller(depth, problem.k - k);
    const int64_t pairs = (count + 1) / 2;
    const bool resume = problem.accumulate || k > 0;
    pack_left(a, first, all_rows, k, count, panels);
    const LeftPanels left = left_panels(a, pairs, panels);
    const Element* right = reinterpret_cast<const Element*>(problem.b) + k / 2 * members * register_columns;
    for (int64_t j = 0; j < problem.n; j += register_columns, right += packed_panel_elements(problem.k)) {
      const int64_t columns = smaller(register_columns, problem.n - j);
      const Element* block_left = left.panels;
      for (int64_t i = 0; i < all_rows; i += register_rows, block_left += left.block_stride) {
        const int64_t rows = smaller(register_rows, all_rows - i);
        float* const c = problem.c + (first + i) * problem.c_row_stride + j;
        const MicroKernel kernel = left.kernels[rows - 1];
        if (columns == register_columns) {
          kernel(pairs, block_left, right, c, problem.c_row_stride, resume);
        } else {
          multiply_cut_block(kernel, pairs, block_left, right, problem, c, rows, columns, resume);
        }
      }
    }
    k += count;
  } while (k < problem.k);
}

void multiply_packed(const PackedMatmul& problem, std::byte* scratch) {
  for (int64_t i = 0; i < problem.m; i += block_rows) {
    multiply_some_rows(problem, i, smaller(block_rows, problem.m - i), divide_scratch(scratch).left);
  }
}

constexpr Bf16Kernels make_kernels() {
  return {block_rows, block_columns, register_rows,      register_columns, scratch_bytes,
          gemm_block, packed_bytes,  pack_right_operand, multiply_packed};
}
#undef ALWAYS_INLINE
