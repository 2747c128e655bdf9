// The lowest part of bf16_gemm_kernels.inl: it copies pieces of the operands into panels, the order in which the
// micro-kernels read. It needs nothing but what bf16_gemm_kernels.inl asks its includer to define.

#define ALWAYS_INLINE inline __attribute__((always_inline))

constexpr int64_t register_columns = register_vectors * lanes;

ALWAYS_INLINE int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

// --- vectors ---------------------------------------------------------------------------------------------------------
ALWAYS_INLINE Vector load(const void* from) {
  Vector value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
template <class Any>
ALWAYS_INLINE void store(void* to, Any value) {
  static_assert(sizeof value == 4 * lanes);
  __builtin_memcpy(to, &value, sizeof value);
}

// Returns the index of the element of (low, high) that becomes element i when, inside every quarter of 128 bits, pieces
// of `width` elements of both are interleaved: those of the quarters' first halves, or of their second.
constexpr int interleaved(int width, bool second, int i) {
  const int lane = i % 4;
  const int from = i - lane + lane / (2 * width) * width + lane % width + (second ? 2 : 0);
  return lane / width % 2 != 0 ? lanes + from : from;
}
// Returns that index when the even quarters of both are put side by side, or the odd ones.
constexpr int gathered(int, bool odd, int i) {
  const int quarter = 2 * (i / 4) + (odd ? 1 : 0);
  return quarter < lanes / 4 ? 4 * quarter + i % 4 : lanes + 4 * (quarter - lanes / 4) + i % 4;
}
template <auto source_index, int width, int... index>
ALWAYS_INLINE void shuffle(UnsignedVector& low, UnsignedVector& high, std::integer_sequence<int, index...>) {
  const UnsignedVector first = __builtin_shufflevector(low, high, source_index(width, false, index)...);
  high = __builtin_shufflevector(low, high, source_index(width, true, index)...);
  low = first;
}
// Shuffles every two vectors that are `distance` apart. Each shuffle is one instruction, on all instruction sets.
template <auto source_index, int distance>
ALWAYS_INLINE void shuffle_stage(UnsignedVector (&square)[lanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) {
    if ((i & distance) == 0) {
      shuffle<source_index, distance>(square[i], square[i + distance], std::make_integer_sequence<int, lanes>());
    }
  }
}
ALWAYS_INLINE void transpose(UnsignedVector (&square)[lanes]) {
  shuffle_stage<interleaved, 1>(square);
  shuffle_stage<interleaved, 2>(square);
#pragma GCC unroll 4
  for (int i = 1; i < lanes; i += 4) {
    const UnsignedVector swapped = square[i];
    square[i] = square[i + 1];
    square[i + 1] = swapped;
  }
  if constexpr (lanes > 4) shuffle_stage<gathered, 4>(square);
  if constexpr (lanes > 8) shuffle_stage<gathered, 8>(square);
}

// --- panels ----------------------------------------------------------------------------------------------------------
// The elements of a pair, odd member first: FP32 numbers, or both in one word.
//   right panel: Element [pair][member][register_columns]
//   left panel of an operand that lies along the inner axis: Element [row][member][member_stride], pairs along the last
//   left panel of another: Element [pair][member][lanes], of which register_rows count
constexpr int64_t member_stride = depth_pairs + 16;  // no power of two, so that rows do not share a cache set
constexpr int64_t row_stride = members * member_stride;

// Stores `pairs`, which has the even members in the low halves: the odd member's vector goes to `to`, the even one's to
// `to + distance`.
ALWAYS_INLINE void store_pairs(Element* to, int64_t distance, UnsignedVector pairs) {
  if constexpr (members == 1) {
    store(to, pairs);
  } else {
    store(to, pairs & 0xFFFF0000U);
    store(to + distance, pairs << 16);
  }
}

// The way in which the words of `lanes` rows at one inner position are read; missing rows are zero.
enum class Across : uint8_t {
  whole,  // the words lie side by side, and all are there: the words behind a panel may be read, and are not used
  cut,    // the words lie side by side up to the operand's last row
  strided,
};
template <Across how>
ALWAYS_INLINE UnsignedVector load_across(const Bf16Operand& operand, int64_t row, int64_t k) {
  const BFloat16* const from = operand.values + row * operand.row_stride + k * operand.inner_stride;
  if constexpr (how == Across::whole) return load_words(reinterpret_cast<const uint16_t*>(from));
  const int64_t there = row < operand.rows ? smaller(operand.rows - row, lanes) : 0;
  if constexpr (how == Across::cut) return load_words(reinterpret_cast<const uint16_t*>(from), there);
  uint16_t words[lanes] = {};
  for (int64_t i = 0; i < there; ++i) words[i] = from[i * operand.row_stride].bits;
  return load_words(words);
}

// Groups of rows of an operand whose inner axis is strided: group g has the rows from first_row + g * step on; its
// elements start at panel + g * distance and are `width` apart.
struct Groups {
  int64_t first_row, step, count, distance, width;
};
template <Across how>
void pack_groups(const Bf16Operand& operand, const Groups& groups, int64_t first_k, int64_t count, Element* panel) {
  for (int64_t k = 0; k < count; k += 2, panel += members * groups.width) {
    Element* to = panel;
    int64_t row = groups.first_row;
    for (int64_t group = 0; group < groups.count; ++group, to += groups.distance, row += groups.step) {
      const UnsignedVector even = load_across<how>(operand, row, first_k + k);
      const UnsignedVector odd = k + 1 < count ? load_across<how>(operand, row, first_k + k + 1) : UnsignedVector{};
      if constexpr (members == 1) {
        store(to, even | (odd << 16));
      } else {
        store(to, odd << 16);
        store(to + groups.width, even << 16);
      }
    }
  }
}
inline void pack_across(const Bf16Operand& operand, const Groups& groups, int64_t first_k, int64_t count,
                        Element* panel) {
  if (operand.row_stride != 1) return pack_groups<Across::strided>(operand, groups, first_k, count, panel);
  Groups some = groups;
  const int64_t fit = operand.rows - lanes - groups.first_row;  // the last row where a whole vector starts
  some.count = fit < 0 ? 0 : smaller(groups.count, fit / groups.step + 1);
  pack_groups<Across::whole>(operand, some, first_k, count, panel);
  if (some.count == groups.count) return;
  some.first_row += some.count * groups.step;
  panel += some.count * groups.distance;
  some.count = groups.count - some.count;
  pack_groups<Across::cut>(operand, some, first_k, count, panel);
}

inline __attribute__((noinline)) UnsignedVector load_last_pairs(const BFloat16* from, int64_t count) {
  BFloat16 words[2 * lanes] = {};
  for (int64_t i = 0; i < count; ++i) words[i] = from[i];
  return reinterpret_cast<UnsignedVector>(load(words));
}
// Loads `count` elements as pairs, then zeros; reads nothing beyond them.
ALWAYS_INLINE UnsignedVector load_along(const BFloat16* from, int64_t count) {
  return count >= 2 * lanes ? reinterpret_cast<UnsignedVector>(load(from)) : load_last_pairs(from, count);
}

// Packs the right panel of an operand that lies along the inner axis.
inline void pack_right_along(const Bf16Operand& operand, int64_t first_row, int64_t rows, int64_t first_k,
                             int64_t count, Element* panel) {
  const int64_t pairs = (count + 1) / 2;
  for (int64_t pair = 0; pair < pairs; pair += lanes) {
    for (int64_t row = 0; row < register_columns; row += lanes) {
      UnsignedVector square[lanes];
      for (int64_t i = 0; i < lanes; ++i) {
        const BFloat16* from = operand.values + (first_row + row + i) * operand.row_stride + first_k + 2 * pair;
        square[i] = row + i < rows ? load_along(from, count - 2 * pair) : UnsignedVector{};
      }
      transpose(square);
      Element* to = panel + pair * members * register_columns + row;
      for (int64_t i = 0; i < lanes && pair + i < pairs; ++i, to += members * register_columns) {
        store_pairs(to, register_columns, square[i]);
      }
    }
  }
}

inline void pack_right_panel(const Bf16Operand& operand, int64_t first_row, int64_t rows, int64_t first_k,
                             int64_t count, Element* panel) {
  if (operand.inner_stride == 1) {
    pack_right_along(operand, first_row, rows, first_k, count, panel);
  } else {
    pack_across(operand, {first_row, lanes, register_vectors, lanes, register_columns}, first_k, count, panel);
  }
}

inline void pack_left(const Bf16Operand& operand, int64_t first_row, int64_t rows, int64_t first_k, int64_t count,
                      Element* panels) {
  if (operand.inner_stride != 1) {
    const int64_t register_blocks = (rows + register_rows - 1) / register_rows;
    const Groups groups{first_row, register_rows, register_blocks, (count + 1) / 2 * members * lanes, lanes};
    return pack_across(operand, groups, first_k, count, panels);
  }
  for (int64_t row = 0; row < rows; ++row, panels += row_stride) {
    const BFloat16* from = operand.values + (first_row + row) * operand.row_stride + first_k;
    for (int64_t k = 0; k < count; k += 2 * lanes) {
      store_pairs(panels + k / 2, member_stride, load_along(from + k, count - k));
    }
  }
}
