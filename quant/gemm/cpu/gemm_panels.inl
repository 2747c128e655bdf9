// A part of gemm_kernels.inl: it copies pieces of the operands into panels, the order in which the micro-kernels read.
//
// A panel of width W is float [k][W], values decoded up to the tensor scale (quant/gemm/gemm.h); missing rows are zero.

// --- vectors ---------------------------------------------------------------------------------------------------------
template <int step, int... index>
ALWAYS_INLINE void exchange(Vector& low, Vector& high, std::integer_sequence<int, index...>) {
  const Vector first = __builtin_shufflevector(low, high, ((index & step) != 0 ? lanes + index - step : index)...);
  high = __builtin_shufflevector(low, high, ((index & step) != 0 ? lanes + index : index + step)...);
  low = first;
}
template <int step>
ALWAYS_INLINE void transpose_stage(Vector (&square)[lanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) {
    if ((i & step) == 0) exchange<step>(square[i], square[i + step], std::make_integer_sequence<int, lanes>());
  }
}
ALWAYS_INLINE void transpose(Vector (&square)[lanes]) {
  transpose_stage<1>(square);
  transpose_stage<2>(square);
  if constexpr (lanes > 4) transpose_stage<4>(square);
  if constexpr (lanes > 8) transpose_stage<8>(square);
}

// --- plain panels ----------------------------------------------------------------------------------------------------
// Returns the codes of consecutive elements, one a lane.
template <ElementCode element>
ALWAYS_INLINE UnsignedVector spread_codes(const uint8_t* codes) {
  using LaneBytes = uint8_t __attribute__((vector_size(lanes)));
  if constexpr (element == ElementCode::e2m1) {
    using HalfBytes = uint8_t __attribute__((vector_size(lanes / 2)));
    using Pairs = uint16_t __attribute__((vector_size(lanes)));
    HalfBytes packed;
    __builtin_memcpy(&packed, codes, sizeof packed);
    const Pairs wide = __builtin_convertvector(packed, Pairs);
    return __builtin_convertvector(reinterpret_cast<LaneBytes>((wide | (wide << 4)) & 0x0F0F), UnsignedVector);
  } else {
    LaneBytes bytes;
    __builtin_memcpy(&bytes, codes, sizeof bytes);
    return __builtin_convertvector(bytes, UnsignedVector);
  }
}

inline __attribute__((noinline)) UnsignedVector spread_some(const uint8_t* codes, int64_t count) {
  uint8_t bytes[lanes] = {};
  for (int64_t i = 0; i < count; ++i) bytes[i] = codes[i];
  return spread_codes<ElementCode::e4m3>(bytes);
}

// Loads elements k .. k + count - 1 of one row, the others zero; count >= lanes stands for all lanes. k is a multiple
// of lanes, which divides every block; in formats with blocks count is a multiple of 16.
template <Format format>
ALWAYS_INLINE Vector load_along_inner(const GemmOperand& operand, int64_t row, int64_t k, int64_t count) {
  if constexpr (format == Format::f32) {
    return load_up_to(static_cast<const float*>(operand.values) + row * operand.row_stride + k, count);
  } else {
    constexpr FormatTraits traits = traits_of(format);
    const uint8_t* from =
        static_cast<const uint8_t*>(operand.values) + row * operand.row_stride + k * traits.code_bits / 8;
    const bool whole = traits.block != 0 || count >= lanes;
    Vector value = decode<traits.element>(whole ? spread_codes<traits.element>(from) : spread_some(from, count));
    if constexpr (traits.block != 0) {
      const uint8_t scale = operand.block_scales[row * operand.scale_stride + k / traits.block];
      value *= broadcast(traits.block_scale == ScaleCode::e4m3 ? e4m3_to_float(scale) : e8m0_to_float(scale));
    }
    if (operand.outer_scales != nullptr) {
      value *= broadcast(operand.outer_scales[row * operand.outer_stride + k / outer_block]);
    }
    return value;
  }
}

// Packs an operand that lies along the inner axis. A store may write up to lanes - 1 elements beyond its panel row: the
// rows are written in ascending order, so the next one repairs it, and the buffer has room behind the last.
template <Format format, int width>
void pack_along_inner(const GemmOperand& operand, int64_t first_row, int64_t rows, int64_t first_k, int64_t count,
                      float* panel) {
  for (int64_t k = 0; k < count; k += lanes) {
    const int64_t depth = count - k < lanes ? count - k : lanes;
    Vector squares[(width + lanes - 1) / lanes][lanes];
    int group = 0;
    for (int column = 0; column < width; column += lanes, ++group) {
      for (int i = 0; i < lanes; ++i) {
        squares[group][i] = column + i < rows
                                ? load_along_inner<format>(operand, first_row + column + i, first_k + k, depth)
                                : Vector{};
      }
      transpose(squares[group]);
    }
    for (int64_t i = 0; i < depth; ++i) {
      for (int g = 0; g < group; ++g) store(panel + (k + i) * width + g * lanes, squares[g][i]);
    }
  }
}

inline __attribute__((noinline)) Vector load_partial_bits(const uint16_t* from, int64_t count) {
  uint16_t pairs[2 * lanes] = {};
  for (int64_t i = 0; i < count; ++i) pairs[i] = from[i];
  Vector bits;
  __builtin_memcpy(&bits, pairs, sizeof bits);
  return bits;
}

// Packs a BF16 operand that lies along the inner axis. It is transposed in pairs of neighbours along k.
template <int width>
void pack_bf16_along_inner(const GemmOperand& operand, int64_t first_row, int64_t rows, int64_t first_k, int64_t count,
                           float* panel) {
  const uint16_t* source = static_cast<const uint16_t*>(operand.values) + first_row * operand.row_stride + first_k;
  constexpr int groups = (width + lanes - 1) / lanes;
  for (int64_t k = 0; k < count; k += 2 * lanes, panel += 2 * lanes * width) {
    const int64_t depth = count - k < 2 * lanes ? count - k : 2 * lanes;
    Vector squares[groups][lanes];
    for (int row = 0; row < groups * lanes; ++row) {
      const uint16_t* from = source + row * operand.row_stride + k;
      __builtin_prefetch(from + width * operand.row_stride);  // the next panel's
      Vector pairs{};
      if (row < rows && depth == 2 * lanes) {
        __builtin_memcpy(&pairs, from, sizeof pairs);
      } else if (row < rows) {
        pairs = load_partial_bits(from, depth);
      }
      squares[row / lanes][row % lanes] = pairs;
    }
    for (Vector(&square)[lanes] : squares) transpose(square);
#pragma GCC unroll 32
    for (int i = 0; i < 2 * lanes; ++i) {
      if (i == depth) break;
      for (int group = 0; group < groups; ++group) {
        const auto pair = reinterpret_cast<UnsignedVector>(squares[group][i / 2]);
        const UnsignedVector value = i % 2 == 0 ? pair << 16 : pair & 0xFFFF0000U;
        store(panel + i * width + group * lanes, reinterpret_cast<Vector>(value));
      }
    }
  }
}

template <class Element, int width>
void pack_along_rows(const GemmOperand& operand, int64_t first_row, int64_t first_k, int64_t count, float* panel) {
  const Element* source = static_cast<const Element*>(operand.values) + first_row + first_k * operand.inner_stride;
  const int64_t readable = operand.rows - first_row;
  for (int64_t k = 0; k < count; ++k, source += operand.inner_stride, panel += width) {
    for (int column = 0; column < width; column += lanes) {
      const int64_t left = readable - column;
      store(panel + column, left > 0 ? load_up_to(source + column, left) : Vector{});
    }
  }
}

template <int width>
void pack_strided(const GemmOperand& operand, int64_t first_row, int64_t rows, int64_t first_k, int64_t count,
                  float* panel) {
  const float* source =
      static_cast<const float*>(operand.values) + first_row * operand.row_stride + first_k * operand.inner_stride;
  for (int64_t k = 0; k < count; ++k) {
    for (int64_t i = 0; i < width; ++i) {
      panel[k * width + i] = i < rows ? source[i * operand.row_stride + k * operand.inner_stride] : 0.0F;
    }
  }
}

template <int width>
void pack_bf16(const GemmOperand& operand, int64_t first_row, int64_t rows, int64_t first_k, int64_t count,
               float* panel) {
  if (operand.inner_stride == 1) {
    pack_bf16_along_inner<width>(operand, first_row, rows, first_k, count, panel);
  } else {
    pack_along_rows<uint16_t, width>(operand, first_row, first_k, count, panel);
  }
}

template <int width>
void pack_f32(const GemmOperand& operand, int64_t first_row, int64_t rows, int64_t first_k, int64_t count,
              float* panel) {
  if (operand.inner_stride == 1) {
    pack_along_inner<Format::f32, width>(operand, first_row, rows, first_k, count, panel);
  } else if (operand.row_stride == 1) {
    pack_along_rows<float, width>(operand, first_row, first_k, count, panel);
  } else {
    pack_strided<width>(operand, first_row, rows, first_k, count, panel);
  }
}

// Packs rows [first_row, first_row + rows), inner positions [first_k, first_k + count), into consecutive panels.
template <int width>
void pack_panels(const GemmOperand& operand, int64_t first_row, int64_t rows, int64_t first_k, int64_t count,
                 float* panels) {
  for (int64_t done = 0; done < rows; done += width, panels += width * count) {
    const int64_t first = first_row + done;
    const int64_t here = rows - done < width ? rows - done : width;
    switch (operand.format) {
      case Format::f32: pack_f32<width>(operand, first, here, first_k, count, panels); break;
      case Format::bf16: pack_bf16<width>(operand, first, here, first_k, count, panels); break;
      case Format::nvfp4: pack_along_inner<Format::nvfp4, width>(operand, first, here, first_k, count, panels); break;
      case Format::mxfp4: pack_along_inner<Format::mxfp4, width>(operand, first, here, first_k, count, panels); break;
      case Format::mxfp8_e4m3:
        pack_along_inner<Format::mxfp8_e4m3, width>(operand, first, here, first_k, count, panels);
        break;
      case Format::mxfp8_e5m2:
        pack_along_inner<Format::mxfp8_e5m2, width>(operand, first, here, first_k, count, panels);
        break;
      case Format::fp8_e4m3:
        pack_along_inner<Format::fp8_e4m3, width>(operand, first, here, first_k, count, panels);
        break;
      case Format::fp8_e5m2:
        pack_along_inner<Format::fp8_e5m2, width>(operand, first, here, first_k, count, panels);
        break;
    }
  }
}
