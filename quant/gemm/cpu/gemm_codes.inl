// The GEMM kernels on codes of one instruction-set level. A source that includes this file defines before, in an
// anonymous namespace,
//   lanes, Vector, UnsignedVector, IntVector        vectors of that many 32-bit elements
//   CodeVector, Halves                              the same number of bytes, uint8_t; half of them, uint16_t
//   fused(a, b, c)                                  a * b + c rounded once, per lane
//   broadcast(float), broadcast_int(int32_t)
//   widen(bytes), narrow(UnsignedVector)            from that many bytes; to Halves, of elements below 2^16
//   lookup(table, index)                            bytes table[index[i]], index < 16
//   stream(to, Vector or Halves)                    a store to aligned memory, past the caches, which
//   fence()                                         orders before later stores
//   kernel_rows, kernel_vectors                     register block: kernel_rows divides 16
//   panel_columns                                   columns of a right panel: a multiple of 16 and of the register
//                                                   block's columns
//   pass_blocks                                     blocks of 16 of a right panel, which stays in the L1 cache
// and a class of dot products, sums of products of 2 q + 12 (uint8, left) and 2 q (int8, right), q being the values of
// codes, with
//   constants                                       the number of extra vectors for a column of a block, which
//   prepare(values[4], scale, to)                   computes from the 2 q and stores at `to`, record_line bytes apart
//   Sum                                             the type of a sum
//   first(left, right, constants)                   the sum over the first quad of positions
//   next(Sum, left, right)                          the sum with one more quad
//   scaled(Sum, scale, constants)                   float(sum of products of 2 q and 2 q) * scale, exactly
//   rows_at_once                                    rows whose sums the kernel makes side by side
//   unpacking_cost                                  CodeKernels::unpacking_cost
// It then includes this file, still inside the namespace: everything here must have internal linkage, because the
// sources are compiled for different machines. For the same reason nothing here calls an inline function of a shared
// header, unless that is forced inline.
//
// Shapes: a [m, k] and b [n, k] are the operands, left and right, and c or the output is [m, n]; k is the inner axis. A
// block is 16 positions of it, a quad 4.

#include "quant/isa/gemm_vectors.inl"

// --- panels ----------------------------------------------------------------------------------------------------------
// A left panel has kernel_rows rows, and for each block of 16: quads of positions uint8 [4][kernel_rows][4], 2 q + 12;
// and float [kernel_rows], the block scales. A right panel has panel_columns columns, and for each block of 16 and 16
// columns a record: int8 [4][16][4], 2 q; float [16], the block scales; and the constants of the dot product.
constexpr int64_t left_block_bytes = kernel_rows * (16 + 4);
constexpr int64_t record_line = 64;
constexpr int64_t kernel_columns = kernel_vectors * lanes;
constexpr int64_t records = panel_columns / tile_rows;
constexpr int quad_vectors = tile_rows / lanes;  // vectors of a quad of positions
static_assert(tile_rows % kernel_rows == 0 && panel_columns % tile_rows == 0 && panel_columns % kernel_columns == 0);

template <class Dot>
constexpr int64_t record_bytes = (5 + Dot::constants) * record_line;

struct Tile {
  const uint8_t* codes;
  const uint8_t* scales;
};
struct TileBuffer {
  alignas(64) uint32_t codes[2][tile_rows];
  uint8_t scales[tile_rows];
};

// Reorders eight codes of a row for a tile: byte i = code i and, above it, code i + 4.
ALWAYS_INLINE uint32_t as_in_tile(uint32_t codes) {
  const auto spread = [](uint32_t four) __attribute__((always_inline)) {
    const uint32_t pairs = (four | (four << 8)) & 0x00FF00FFU;
    return (pairs | (pairs << 4)) & 0x0F0F0F0FU;
  };
  return spread(codes & 0xFFFFU) | (spread(codes >> 16) << 4);
}

inline Tile gather_tile(const CodeOperand& operand, int64_t first_row, int64_t block, TileBuffer& buffer) {
  for (int64_t row = 0; row < tile_rows; ++row) {
    uint32_t codes[2] = {};
    uint8_t scale = 0;
    if (first_row + row < operand.rows) {
      __builtin_memcpy(codes, operand.codes + (first_row + row) * operand.code_stride + block * 8, sizeof codes);
      scale = operand.scales[(first_row + row) * operand.scale_stride + block];
    }
    buffer.codes[0][row] = as_in_tile(codes[0]);
    buffer.codes[1][row] = as_in_tile(codes[1]);
    buffer.scales[row] = scale;
  }
  return {reinterpret_cast<const uint8_t*>(buffer.codes), buffer.scales};
}

ALWAYS_INLINE Tile tile_at(const CodeOperand& operand, int64_t first_row, int64_t block, TileBuffer& buffer) {
  if (!operand.tiles) return gather_tile(operand, first_row, block, buffer);
  const int64_t line = first_row / tile_rows;
  return {operand.codes + line * operand.code_stride + block * tile_code_bytes,
          operand.scales + line * operand.scale_stride + block * tile_rows};
}

// Returns vector `part` of a quad of positions, each code replaced by its entry in the table.
ALWAYS_INLINE CodeVector unpack(const uint8_t* codes, int quad, int part, CodeVector table) {
  using Pairs = uint16_t __attribute__((vector_size(sizeof(CodeVector))));
  Pairs packed;
  __builtin_memcpy(&packed, codes + (quad / 2) * record_line + part * static_cast<int>(sizeof packed), sizeof packed);
  return lookup(table, reinterpret_cast<CodeVector>((quad % 2 == 0 ? packed : packed >> 4) & 0x0F0F));
}

ALWAYS_INLINE Vector unpack_scales(const uint8_t* scales, int part) {
  return decode<ElementCode::e4m3>(widen(scales + part * lanes));
}

constexpr uint8_t doubled_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, 255, 254, 253, 252, 250, 248, 244};
constexpr uint8_t biased_values[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

ALWAYS_INLINE CodeVector repeat_table(const uint8_t* table) {
  CodeVector result;
  for (int i = 0; i < static_cast<int>(sizeof result); i += 16) {
    __builtin_memcpy(reinterpret_cast<uint8_t*>(&result) + i, table, 16);
  }
  return result;
}

// Unpacks the 16 rows from first_row, blocks [first_block, first_block + depth), into 16 / kernel_rows left panels.
inline void unpack_rows(const CodeOperand& a, int64_t first_row, int64_t first_block, int64_t depth,
                        std::byte* panels) {
  const CodeVector table = repeat_table(biased_values);
  TileBuffer buffer;
  for (int64_t block = 0; block < depth; ++block) {
    const Tile tile = tile_at(a, first_row, first_block + block, buffer);
    alignas(64) uint8_t lines[5][record_line];
#pragma GCC unroll 4
    for (int part = 0; part < quad_vectors; ++part) {
#pragma GCC unroll 4
      for (int quad = 0; quad < 4; ++quad) {
        const CodeVector values = unpack(tile.codes, quad, part, table);
        __builtin_memcpy(lines[quad] + part * static_cast<int>(sizeof values), &values, sizeof values);
      }
      const Vector scales = unpack_scales(tile.scales, part);
      __builtin_memcpy(lines[4] + part * static_cast<int>(sizeof scales), &scales, sizeof scales);
    }
    std::byte* to = panels + block * left_block_bytes;
#pragma GCC unroll 4
    for (int64_t row = 0; row < tile_rows; row += kernel_rows, to += depth * left_block_bytes) {
#pragma GCC unroll 5
      for (int64_t line = 0; line < 5; ++line) {
        __builtin_memcpy(to + line * kernel_rows * 4, lines[line] + row * 4, kernel_rows * 4);
      }
    }
  }
}

template <class Dot>
ALWAYS_INLINE void unpack_record(Tile tile, CodeVector table, std::byte* to) {
#pragma GCC unroll 4
  for (int part = 0; part < quad_vectors; ++part, to += sizeof(CodeVector)) {
    IntVector values[4];
#pragma GCC unroll 4
    for (int quad = 0; quad < 4; ++quad) {
      values[quad] = reinterpret_cast<IntVector>(unpack(tile.codes, quad, part, table));
      __builtin_memcpy(to + quad * record_line, &values[quad], sizeof values[quad]);
    }
    const Vector scales = unpack_scales(tile.scales, part);
    __builtin_memcpy(to + 4 * record_line, &scales, sizeof scales);
    Dot::prepare(values, scales, to + 5 * record_line);
  }
}

// Unpacks the right panel of the columns from first_column.
template <class Dot>
void unpack_columns(const CodeOperand& b, int64_t first_column, int64_t first_block, int64_t depth, std::byte* panel) {
  const CodeVector table = repeat_table(doubled_values);
  TileBuffer buffer;
  const TileBuffer zeros{};
  for (int64_t block = 0; block < depth; ++block) {
    for (int64_t record = 0; record < records; ++record, panel += record_bytes<Dot>) {
      const int64_t column = first_column + record * tile_rows;
      const Tile tile = column < b.rows ? tile_at(b, column, first_block + block, buffer)
                                        : Tile{reinterpret_cast<const uint8_t*>(zeros.codes), zeros.scales};
      unpack_record<Dot>(tile, table, panel);
    }
  }
}

#include "quant/gemm/cpu/gemm_codes_kernels.inl"
#undef ALWAYS_INLINE
